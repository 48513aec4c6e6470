"""The results as a report in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluations.summary import MEASURES
from training.markdown import markdown_table

SHARES = ("accuracy", "exact", "right", "majority", "vote")
"""Measures that are given in percent."""


def estimate_cell(measure: str, estimate: Mapping[str, float]) -> str:
    """An estimate as in `43.4 (36.7 … 50.3)`."""
    scale, digits = (100, 1) if measure in SHARES else (1, 3)
    value, low, high = (scale * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def measures_table(results: Mapping[str, Any]) -> str:
    """A row per task and measure, a column per budget, the base model before them."""
    budgets = results["budgets"]
    rows = []
    for name, task in results["tasks"].items():
        for measure in MEASURES[task["kind"]]:
            unit = ", %" if measure in SHARES else ""
            base = task.get("base")
            cells = [estimate_cell(measure, base["0"][measure]) if base else "–"]
            cells += [
                estimate_cell(measure, task["thinker"][str(budget)][measure]) for budget in budgets
            ]
            rows.append([f"{name}: {measure}{unit}", str(task["items"]), *cells])
    return markdown_table(["", "items", "base model", *(f"b={budget}" for budget in budgets)], rows)


def difficulty_table(task: Mapping[str, Any], budgets: Sequence[int]) -> str:
    """Nats saved per token, by what the token costs without a thought."""
    rows = []
    for number, bin_ in enumerate(task["thinker"]["0"]["difficulty"]):
        below = "" if bin_["below"] is None else f" … {bin_['below']:g}"
        gains = [
            estimate_cell("gain", task["thinker"][str(budget)]["difficulty"][number]["gain"])
            for budget in budgets
            if budget
        ]
        base = f"{bin_['base_nll']['value']:.3f}"
        rows.append([f"from {bin_['from']:g}{below}", str(bin_["tokens"]), base, *gains])
    head = ["tokens that cost, nats", "number", "b=0", *(f"b={b}: saved" for b in budgets if b)]
    return markdown_table(head, rows)


def report_markdown(results: Mapping[str, Any], files: Sequence[str]) -> str:
    """All tables, with links to plots and heat maps."""
    model = results["model"]
    parts = [
        f"# {model['source']}",
        f"Weights {model['sha256'][:16]}, thoughts at temperature {results['temperature']}, seed "
        f"{results['seed']}, 95 % intervals. `b` is the thought budget.",
        measures_table(results),
    ]
    for name, task in results["tasks"].items():
        if task["kind"] == "text":
            parts += [
                f"## {name}: by how hard a token is without a thought",
                difficulty_table(task, results["budgets"]),
            ]
    parts += [f"![{name}]({name})" for name in files if name.endswith(".svg")]
    parts += [f"[{name}]({name})" for name in files if name.endswith(".html")]
    return "\n\n".join(parts) + "\n"
