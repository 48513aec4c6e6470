"""Right answers and passes, by budget and threshold, in a small size."""

import json
from pathlib import Path

import pytest

from quietstar_infer.config import load_tokenizer
from tests.support.checkpoints import write_random_checkpoint
from tests.support.servers import DEMO
from tests.support.training.gates import copy_with_gate
from training.cli import main
from training.demo.accuracy import held_out, problem_scores
from training.demo.adaptive.measurement import SWEPT_THRESHOLDS, Adaptive, measure_adaptive
from training.demo.forced_thoughts import Evaluation
from training.errors import UsageError
from training.evaluations.sweep import Cell
from training.thoughts.model import QuietThinker

EVALUATION = Evaluation(problems=4, budgets=(0, 2, 12))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model with a gate that knows nothing."""
    return copy_with_gate(DEMO, tmp_path_factory.mktemp("demo") / "model", (12,))


@pytest.fixture(scope="module")
def measured(gated: Path) -> Adaptive:
    return measure_adaptive(gated, EVALUATION)


def test_always_thinking_answers_as_measured_at_the_answers_alone(measured: Adaptive) -> None:
    thinker, tokenizer = QuietThinker.from_checkpoint(DEMO), load_tokenizer(DEMO)
    for family, found in measured["greedy"].items():
        scores = problem_scores(thinker, tokenizer, held_out(family, EVALUATION), EVALUATION)
        for budget in EVALUATION.budgets:
            assert found[Cell(budget).key]["accuracy"] == scores[budget].accuracy


def test_thresholds_save_passes(measured: Adaptive) -> None:
    assert set(SWEPT_THRESHOLDS) <= set(measured["thresholds"])
    for thoughts in ("greedy", "sampled"):
        for found in measured[thoughts].values():
            counts = [
                found[Cell(12, threshold).key]["cost"]["thoughts"]
                for threshold in measured["thresholds"]
            ]
            assert counts == sorted(counts, reverse=True)
            assert counts[0] == found["12"]["cost"]["tokens"]
            assert found["0"]["cost"]["thought_tokens"] == 0


def test_the_command_adds_to_the_results(gated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((gated / "results.json").read_text())
    assert main(["demo-passes", str(gated), "--problems", "1"]) == 0
    assert "| always (b=12) | 100.0 | 13.00 |" in capsys.readouterr().out
    after = json.loads((gated / "results.json").read_text())
    assert after.pop("adaptive")["problems"] == 1
    before.pop("adaptive", None)
    assert after == before


def test_a_model_without_a_gate_is_refused(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "plain", "mistral")
    with pytest.raises(UsageError, match="has no thought gate to measure; fit one first"):
        measure_adaptive(folder, EVALUATION)


def test_a_folder_without_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo-passes", str(tmp_path)]) == 2
    assert "is no results.json that demo-model wrote" in capsys.readouterr().err
