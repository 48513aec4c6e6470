"""Right answers, losses and passes of whole held-out problems, by budget and threshold.

Every token of a solved problem is predicted: its answer is right if it is the likeliest token, and
all of its tokens count in the passes per token. Thoughts are those of the server, by seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import QuietStarConfig
from quietstar_infer.gate import ThoughtGate
from training.demo.accuracy import held_out
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import Problem
from training.demo.forced_thoughts import Evaluation
from training.demo.report import RESULTS_FILE, Results, read_results, write_results
from training.errors import UsageError
from training.evaluations.backends.base import PassageScores
from training.evaluations.backends.local import LocalBackend
from training.evaluations.cost import Cost
from training.evaluations.evaluated_model import (
    EvaluatedModel,
    load_evaluated_gate,
    load_for_evaluation,
)
from training.evaluations.sweep import Cell, sweep_cells
from training.evaluations.tasks.passages import Passage
from training.thoughts.decode import ThoughtSettings

SWEPT_THRESHOLDS = (0.0, 0.005, 0.02, 0.1, 0.5, 2.0)
"""Nats; the checkpoint's default threshold is measured, too."""

Adaptive: TypeAlias = dict[str, Any]
"""`adaptive` in results.json."""


def add_adaptive(folder: Path, evaluation: Evaluation) -> Results:
    """Measure a model that demo-model wrote, and put it into its results.json: all of that. Raises
    `UsageError` where there is no such file or no gate.
    """
    results = read_results(folder / RESULTS_FILE)
    results["adaptive"] = measure_adaptive(folder, evaluation)
    write_results(results, folder)
    return results


def measure_adaptive(folder: Path, evaluation: Evaluation) -> Adaptive:
    """Right answers, loss and passes of a checkpoint with a gate, by family, budget and threshold,
    greedy and sampled; raises `UsageError` where it has no gate.
    """
    config = QuietStarConfig.from_checkpoint(folder)
    model = load_for_evaluation(folder, None, "cpu", "float32")
    gate = load_evaluated_gate(folder, model.thinker)
    if gate is None:
        raise UsageError(
            f"{folder} has no thought gate to measure; fit one first (python -m training gate)"
        )
    default = config.default_thought_threshold
    swept = tuple(sorted({default, *SWEPT_THRESHOLDS}))
    results: Adaptive = {
        "problems": evaluation.problems,
        "default": {"budget": config.default_thought_budget, "threshold": default},
        "budgets": list(evaluation.budgets),
        "thresholds": list(swept),
    }
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        settings = ThoughtSettings(evaluation.budgets, temperature, thresholds=swept)
        results[name] = {}
        for family in FAMILIES:
            scored = list(_scored(model, gate, held_out(family, evaluation), settings))
            results[name][family] = {
                cell.key: _figures(cell, scored) for cell in sweep_cells(settings.budgets, swept)
            }
    return results


def _scored(
    model: EvaluatedModel,
    gate: ThoughtGate,
    problems: Sequence[Problem],
    settings: ThoughtSettings,
) -> Iterator[tuple[int, PassageScores]]:
    """The answer's place among the scored tokens of each problem, and these. A problem's number is
    its seed, as in `demo-serve-eval`.
    """
    tokenizer = model.tokenizer
    for seed, problem in enumerate(problems):
        backend = LocalBackend(*model, replace(settings, seed=seed), gate)
        (scores,) = backend.score([_passage(problem, tokenizer)])
        yield len(tokenizer.encode(problem.prompt)) - 1, scores


def _passage(problem: Problem, tokenizer: PreTrainedTokenizerBase) -> Passage:
    ids = tokenizer.encode(problem.prompt + problem.answer + problem.ending)
    return Passage([*ids, tokenizer.eos_token_id], 1)


def _figures(cell: Cell, scored: Sequence[tuple[int, PassageScores]]) -> dict[str, Any]:
    """Of one cell; `cost` is that of all tokens, `nll` the loss per token, in nats."""
    cost = sum((scores[cell].cost for _, scores in scored), Cost(0))
    right = sum(scores[cell].scores[answer].is_likeliest for answer, scores in scored)
    nll = -sum(score.logprob for _, scores in scored for score in scores[cell].scores)
    return {
        "accuracy": right / len(scored),
        "nll": nll / cost.tokens,
        "cost": asdict(cost),
    }
