"""From `results.json` to the tables of the model cards and the documentation."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training.demo.adaptive.table import adaptive_table
from training.errors import UsageError
from training.markdown import markdown_table

Results = dict[str, Any]
"""What `training.demo.build` measured, as it stands in `results.json`."""

FamilyAccuracy = dict[str, dict[int, float]]
"""Accuracy (0 to 1) by family and thought budget."""

RESULTS_FILE = "results.json"
"""Beside the model that was measured."""
WEIGHT_BINS = tuple(n / 20 for n in range(-10, 31))
"""Bounds of the bins of the histogram of mixing weights; the outer bins include all beyond."""
KIND_NAMES = {
    "answer": "the answer",
    "open": "open: the base model's loss is 0.1 nats or more",
    "easy": "easy: it is less",
    "all": "all",
}


def write_results(results: Results, folder: Path) -> None:
    """Write a model's `results.json`."""
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read_results(file: Path) -> Results:
    """Read a `results.json`; raises `UsageError` where there is none."""
    try:
        results: Results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{file} is no {RESULTS_FILE} that demo-model wrote") from None
    return results


def percent(shares: Sequence[float]) -> str:
    """Mean and spread of shares, in percent."""
    spread = f" ± {100 * stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * mean(shares):.1f}{spread}"


def over_seeds(results: Results, read: Callable[[Results], float]) -> list[float]:
    """One number of every thinker."""
    return [read(thinker) for thinker in results["thinkers"]]


def budgets_of(results: Results, family: str) -> list[str]:
    """The budgets that were measured, as JSON keys."""
    return list(results["thinkers"][0]["greedy"]["scores"][family])


def accuracies(results: Results, thoughts: str, family: str, budget: str) -> list[float]:
    """Right answers of every thinker, as shares."""
    return over_seeds(results, lambda t: t[thoughts]["scores"][family][budget]["accuracy"])


def accuracy_table(results: Results) -> str:
    """Right answers in percent, by family, thoughts and budget."""
    families = list(results["trunk"])
    budgets = budgets_of(results, families[0])
    head = ["right answers, %", "base model", "control", *(f"b={budget}" for budget in budgets)]
    rows = [
        [
            f"{family}, {thoughts} thoughts",
            percent([results["trunk"][family]]),
            percent([control[family] for control in results["controls"]]),
            *(percent(accuracies(results, thoughts, family, b)) for b in budgets),
        ]
        for family in families
        for thoughts in ("greedy", "sampled")
    ]
    return markdown_table(head, rows)


def times(high: float, low: float) -> float:
    """How many times as much one is as the other."""
    return high / low if low else math.inf


def gain_table(results: Results) -> str:
    """How many times as many answers are right at the best budget as without a thought."""
    rows = []
    for family in results["trunk"]:
        for thoughts in ("greedy", "sampled"):
            shares = {
                budget: accuracies(results, thoughts, family, budget)
                for budget in budgets_of(results, family)
            }
            best = max(shares, key=lambda budget: mean(shares[budget]))
            gains = [times(high, low) for high, low in zip(shares[best], shares["0"], strict=True)]
            rows.append(
                [
                    f"{family}, {thoughts} thoughts",
                    percent(shares["0"]),
                    f"{percent(shares[best])} (b={best})",
                    f"{times(mean(shares[best]), mean(shares['0'])):.2f}",
                    f"{min(gains):.2f} … {max(gains):.2f}",
                ]
            )
    return markdown_table(["", "b=0, %", "best, %", "times as many", "over the seeds"], rows)


def loss_table(results: Results, budget: str = "12") -> str:
    """Losses and mixing weights of the first thinker, by kind of token."""
    head = ["tokens", "number", "without", "greedy thoughts", "sampled", "mean w", "spread of w"]
    greedy, sampled = (
        results["thinkers"][0][thoughts]["tokens"][budget]["kinds"]
        for thoughts in ("greedy", "sampled")
    )
    rows = [
        [
            name,
            f"{sampled[kind]['tokens']}",
            f"{sampled[kind]['base_nll']:.3f}",
            f"{greedy[kind]['nll']:.3f}",
            f"{sampled[kind]['nll']:.3f}",
            f"{sampled[kind]['mixing_weight']:.3f}",
            f"{sampled[kind]['spread']:.3f}",
        ]
        for kind, name in KIND_NAMES.items()
    ]
    return markdown_table(head, rows)


def weight_table(results: Results) -> str:
    """Mean mixing weights after sampled thoughts, by kind of token and budget, over all seeds."""
    budgets = list(results["thinkers"][0]["sampled"]["tokens"])

    def cell(kind: str, budget: str) -> str:
        weights = over_seeds(
            results,
            lambda t: t["sampled"]["tokens"][budget]["kinds"][kind]["mixing_weight"],
        )
        spread = f" ± {stdev(weights):.2f}" if len(weights) > 1 else ""
        return f"{mean(weights):.2f}{spread}"

    rows = [[name, *(cell(kind, b) for b in budgets)] for kind, name in KIND_NAMES.items()]
    return markdown_table(["mean w", *(f"b={budget}" for budget in budgets)], rows)


def repetition_table(results: Results) -> str:
    """The share of a thought that is equal to the previous token's thought, by budget."""
    budgets = list(results["thinkers"][0]["greedy"]["tokens"])

    def cell(thoughts: str, budget: str) -> str:
        return percent(over_seeds(results, lambda t: t[thoughts]["tokens"][budget]["repeated"]))

    rows = [
        [f"{thoughts} thoughts", *(cell(thoughts, budget) for budget in budgets)]
        for thoughts in ("greedy", "sampled")
    ]
    return markdown_table(["repeated, %", *(f"b={budget}" for budget in budgets)], rows)


def thought_table(results: Results) -> str:
    """Real thoughts of the first thinker."""
    rows = [
        [
            f"… {thought['text'][-60:]}",
            f"`{thought['at_once']}`",
            f"`{thought['thought']}`",
            f"{thought['mixing_weight']:.2f}",
            f"`{thought['answer']}`",
        ]
        for thought in results["thinkers"][0]["thoughts"]
    ]
    return markdown_table(["text", "at once", "thought", "w", "after it"], rows)


def tables(results: Results) -> str:
    """All tables, for the documentation."""
    shown = [
        adaptive_table,
        accuracy_table,
        gain_table,
        loss_table,
        weight_table,
        repetition_table,
        thought_table,
    ]
    return "\n\n".join(show(results) for show in shown)


def family_table(accuracy: FamilyAccuracy) -> str:
    """Accuracy in percent, one row per family."""
    budgets = list(next(iter(accuracy.values())))
    head = ["family", *(f"b={budget}" if budget else "direct" for budget in budgets)]
    rows = [
        [family, *(f"{100 * a:.1f} %" for a in row.values())] for family, row in accuracy.items()
    ]
    return markdown_table(head, rows)
