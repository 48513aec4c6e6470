"""Batches: padding, targets, and the tokens ahead."""

import pytest
import torch
from transformers import DataCollatorWithPadding

from quietstar_infer.config import load_tokenizer
from tests.support.checkpoints import TOKENIZER
from training.errors import UsageError
from training.thoughts.batch import IGNORED, check_window, look_ahead, make_batch

PAD = 0


def test_padding_is_the_run_of_pads_at_the_end() -> None:
    batch = make_batch(torch.tensor([[5, PAD, 6, PAD, PAD], [1, 2, 3, 4, 5]]), PAD)
    assert batch.labels_BT.tolist() == [[5, PAD, 6, IGNORED, IGNORED], [1, 2, 3, 4, 5]]


def test_a_mask_marks_the_end_of_a_text() -> None:
    ids, mask = torch.tensor([[5, PAD, PAD]]), torch.tensor([[1, 1, 0]])
    assert make_batch(ids, PAD, attention_mask=mask).labels_BT.tolist() == [[5, PAD, IGNORED]]


def test_a_genuine_end_of_text_is_learnt_where_it_also_pads() -> None:
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    end = tokenizer.eos_token_id
    collated = DataCollatorWithPadding(tokenizer)(
        [{"input_ids": [5, end, 6, end]}, {"input_ids": [*range(8, 14)]}]
    )
    batch = make_batch(collated["input_ids"], end, attention_mask=collated["attention_mask"])
    assert batch.labels_BT[0].tolist() == [5, end, 6, end, IGNORED, IGNORED]


def test_tokens_ahead() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    labels = torch.tensor([[5, 6, IGNORED, 8]])
    ahead = look_ahead(make_batch(ids, PAD, labels), ahead=2)
    assert ahead.ids_BTS.tolist() == [[[6, 7], [7, 8], [8, PAD], [PAD, PAD]]]
    assert ahead.real_BTS.tolist() == [
        [[True, False], [False, True], [True, False], [False, False]]
    ]


@pytest.mark.parametrize(
    ("ids", "labels", "mask", "message"),
    [
        ([[PAD, 5, 6]], None, [[0, 1, 1]], "on the right"),
        ([[5, PAD, 6]], None, [[1, 0, 1]], "on the right"),
        ([[5, 6, 7]], [[6, 7, IGNORED]], None, "must not be shifted"),
        ([[PAD, PAD, PAD]], None, None, "nothing to predict"),
        ([[5, PAD, PAD]], None, None, "nothing to predict"),
        ([[5, 6]], [[5, IGNORED]], None, "nothing to predict"),
    ],
)
def test_bad_batches_are_refused(
    ids: list[list[int]],
    labels: list[list[int]] | None,
    mask: list[list[int]] | None,
    message: str,
) -> None:
    labels_BT, mask_BT = (None if x is None else torch.tensor(x) for x in (labels, mask))
    with pytest.raises(UsageError, match=message):
        make_batch(torch.tensor(ids), PAD, labels_BT, mask_BT)


def test_window() -> None:
    check_window(6, ahead=4, sliding_window=6)
    with pytest.raises(UsageError, match="too short to look 4 tokens ahead: at least 6"):
        check_window(5, ahead=4, sliding_window=None)
    with pytest.raises(UsageError, match="sliding window of 5"):
        check_window(6, ahead=2, sliding_window=5)
