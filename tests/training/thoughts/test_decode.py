"""The thought decoder, against the reference decoder."""

import math
from pathlib import Path

import pytest
import torch

from quietstar_infer.reference import ReferenceDecoder, seeded_thought
from tests.support.checkpoints import write_random_checkpoint
from training.errors import UsageError
from training.kernels.thought_attention import GrowingTextAttention, TextAttention
from training.thoughts.decode import ThoughtSettings, decode_thoughts, seeded_tokens
from training.thoughts.model import QuietThinker

TEXTS = [[1, 9, 8, 5, 30, 9], [1, 12, 40, 7, 7, 21]]
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


@torch.inference_mode()
def test_thoughts_of_several_texts_positions_and_budgets(checkpoint: Path) -> None:
    thinker = QuietThinker.from_checkpoint(checkpoint)
    reference = ReferenceDecoder.from_checkpoint(checkpoint)
    text = TextAttention(needs_grad=False)
    base_BTH = thinker.text_states(text, torch.tensor(TEXTS))
    run, budgets = range(2, 5), (1, 4)
    choose = seeded_tokens(thinker, SEEDS, run, 1.0)
    thoughts = list(decode_thoughts(thinker, text, len(TEXTS), run, budgets, choose))
    assert [thought.budget for thought in thoughts] == [1, 4]
    for thought in thoughts:
        mixed = thinker.mix(base_BTH[:, run.start : run.stop], thought.hidden_BCH)
        for row, (ids, seed) in enumerate(zip(TEXTS, SEEDS, strict=True)):
            for column, position in enumerate(run):
                known = ids[: position + 1]
                expected = reference.predict(known, thought.budget, seeded_thought(seed, 1.0))
                assert thought.ids_BCb[row, column].tolist() == expected.thought_ids
                assert float(mixed.weight[row, column]) == pytest.approx(
                    expected.mixing_weight, abs=1e-4
                )


@torch.inference_mode()
def test_a_text_that_grows_by_a_token(checkpoint: Path) -> None:
    """Decoding gives the hidden states of prefilling, and its keys and values serve thoughts."""
    thinker = QuietThinker.from_checkpoint(checkpoint)
    ids = torch.tensor(TEXTS)
    growing, whole = GrowingTextAttention(), TextAttention(needs_grad=False)
    thinker.text_states(growing, ids[:, :4])
    last = [thinker.text_states(growing, ids[:, n : n + 1], first=n) for n in (4, 5)]
    expected = thinker.text_states(whole, ids)
    torch.testing.assert_close(torch.cat(last, dim=1), expected[:, 4:], rtol=1e-4, atol=1e-4)
    end = range(5, 6)
    choose = seeded_tokens(thinker, SEEDS, end, 0.0)
    (one,), (other,) = (
        decode_thoughts(thinker, text, len(TEXTS), end, (3,), choose) for text in (growing, whole)
    )
    assert torch.equal(one.ids_BCb, other.ids_BCb)
    torch.testing.assert_close(one.hidden_BCH, other.hidden_BCH, rtol=1e-4, atol=1e-4)


def test_budget_0_decodes_nothing(checkpoint: Path) -> None:
    thinker = QuietThinker.from_checkpoint(checkpoint)
    choose = seeded_tokens(thinker, SEEDS, range(1), 0.0)
    text = TextAttention(needs_grad=False)
    assert not list(decode_thoughts(thinker, text, len(TEXTS), range(1), (0,), choose))


@pytest.mark.parametrize("budgets", [(), (2, 2), (4, 2), (-1,)])
def test_budgets_must_rise(budgets: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="must be 0 or more, and rise"):
        ThoughtSettings(budgets)


@pytest.mark.parametrize("thresholds", [(), (0.1, 0.1), (0.5, 0.0), (-0.1,), (math.nan,)])
def test_thresholds_must_rise(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="must be finite numbers from 0 up, and rise"):
        ThoughtSettings((0, 4), thresholds=thresholds)
