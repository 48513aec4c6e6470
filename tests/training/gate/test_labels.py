"""The labels of a gate, against the reference decoder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quietstar_infer.gate import prediction_entropy
from quietstar_infer.reference import ReferenceDecoder, seeded_thought
from training.errors import UsageError
from training.gate import labels
from training.gate.labels import LabelledPositions, label_positions
from training.thoughts.decode import ThoughtSettings
from training.thoughts.model import QuietThinker

DOCUMENTS = [[1, 9, 8, 5, 30, 9, 44], [1, 12, 40, 7], [1, 21, 33, 50, 9]]
BUDGETS = (1, 3)


@pytest.fixture(scope="module")
def folder(random_checkpoint: Callable[[str], Path]) -> Path:
    return random_checkpoint("mistral")


def labelled(folder: Path) -> LabelledPositions:
    thinker = QuietThinker.from_checkpoint(folder)
    return label_positions(thinker, DOCUMENTS, ThoughtSettings(BUDGETS, seed=5))


@pytest.mark.parametrize("tokens_at_once", [2**12, 12])
def test_labels(folder: Path, monkeypatch: pytest.MonkeyPatch, tokens_at_once: int) -> None:
    """At once, and in many batches and runs."""
    monkeypatch.setitem(labels.TOKENS_AT_ONCE, "cpu", tokens_at_once)
    found = labelled(folder)
    assert len(found) == sum(len(ids) - 1 for ids in DOCUMENTS)
    reference = ReferenceDecoder.from_checkpoint(folder)
    for number, ids in enumerate(DOCUMENTS):
        own = found.of(found.document_N == number)
        for position in range(len(own)):
            for k, budget in enumerate(BUDGETS):
                said = reference.predict(
                    ids[: position + 1], budget, seeded_thought(5 + number, 1.0)
                )
                mixed_V, base_V = (
                    logits_V.log_softmax(-1) for logits_V in (said.logits_V, said.base_logits_V)
                )
                possible_V = mixed_V.isfinite()
                gain = (mixed_V.exp() * (mixed_V - base_V))[possible_V].sum()
                following = ids[position + 1]
                for actual, expected in (
                    (own.gain_NK[position, k], gain),
                    (own.nll_NK[position, k], -mixed_V[following]),
                    (own.base_nll_N[position], -base_V[following]),
                    (own.entropy_N[position], prediction_entropy(said.base_logits_V[None])[0]),
                ):
                    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_a_budget_beyond_the_models_positions(folder: Path) -> None:
    thinker = QuietThinker.from_checkpoint(folder)
    with pytest.raises(UsageError, match="needs 1028 positions, the model has 1024"):
        label_positions(thinker, [[1, 9, 8]], ThoughtSettings((1024,)))
