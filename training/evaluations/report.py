"""The results as a report in Markdown."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from training.evaluations.summary import MEASURES
from training.evaluations.sweep import Cell, sweep_cells
from training.markdown import markdown_table

SHARES = ("accuracy", "exact", "right", "majority", "vote")
"""Measures that are given in percent."""
NOTHING_SURE = (
    "Thoughts do not surely gain anything beyond what training alone did: every interval includes "
    "0 or lies below it."
)


def estimate_cell(measure: str, estimate: Mapping[str, float]) -> str:
    """An estimate as in `43.4 (36.7 … 50.3)`."""
    scale, digits = (100, 1) if measure in SHARES else (1, 3)
    value, low, high = (scale * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def _measured(measure: str, entry: Mapping[str, Any], cell: Cell) -> str:
    """A measure in a cell; where nothing is thought there is nothing that thoughts gain."""
    return "–" if measure == "gain" and not cell.budget else estimate_cell(measure, entry[measure])


def measures_table(results: Mapping[str, Any]) -> str:
    """A row per task, measure and threshold, a column per budget, before them the base model's and
    the control's.
    """
    budgets, thresholds = results["budgets"], results["thresholds"]
    others = {"base": "base model", **({"control": "control"} if results.get("control") else {})}
    # Without thresholds the table does not speak of them.
    several = any(thresholds)
    rows = []
    for name, task in results["tasks"].items():
        for measure, threshold in product(MEASURES[task["kind"]], thresholds):
            unit = ", %" if measure in SHARES else ""
            cells = [
                _measured(measure, task[role]["0"], Cell(0)) if role in task else "–"
                for role in others
            ]
            cells += [
                _measured(measure, task["thinker"][cell.key], cell)
                for cell in (Cell(budget, threshold) for budget in budgets)
            ]
            over = [f"{threshold:g}"] if several else []
            rows.append([f"{name}: {measure}{unit}", str(task["items"]), *over, *cells])
    over = ["over, nats"] if several else []
    head = ["", "items", *over, *others.values(), *(f"b={budget}" for budget in budgets)]
    return markdown_table(head, rows)


def cost_measure(kind: str) -> str:
    """The measure of a kind of task that its costs are compared with."""
    return next((measure for measure in MEASURES[kind] if measure in SHARES), "gain")


def gain_kept(task: Mapping[str, Any], cell: Cell) -> float | None:
    """The share of the gain of always thinking that a cell keeps; None where that was not measured
    or gained nothing.
    """
    always = task["thinker"].get(Cell(cell.budget).key)
    if always is None or always["gain"]["value"] <= 0:
        return None
    kept: float = task["thinker"][cell.key]["gain"]["value"] / always["gain"]["value"]
    return kept


def cost_table(task: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """A row per cell: how often it thinks, what that costs, what it gains, and the mean mixing
    weight of its thoughts.
    """
    measure = cost_measure(task["kind"])
    rows = []
    for cell in cells:
        entry = task["thinker"][cell.key]
        cost = entry["cost"]
        row = [
            str(cell.budget),
            f"{cell.threshold:g}" if cell.budget else "–",
            f"{100 * cost['thought_about']:.1f}",
            str(cost["thought_tokens"]),
            f"{cost['passes_per_token']:.2f}",
            _measured(measure, entry, cell),
        ]
        if task["kind"] == "text":
            kept = gain_kept(task, cell)
            row.append("–" if kept is None else f"{100 * kept:.1f}")
            row.append(_or_dash(entry["mixing_weight"]))
        rows.append(row)
    head = ["b", "over, nats", "thought about, %", "thought tokens", "passes per token"]
    head.append(f"{measure}, %" if measure in SHARES else measure)
    return markdown_table(
        head + (["gain kept, %", "mixing weight"] if task["kind"] == "text" else []), rows
    )


def difficulty_table(task: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """Nats saved per token, by what the token costs without a thought."""
    rows = []
    thinking = [cell for cell in cells if cell.budget]
    for number, bin_ in enumerate(task["thinker"]["0"]["difficulty"]):
        below = "" if bin_["below"] is None else f" … {bin_['below']:g}"
        gains = [
            estimate_cell("gain", task["thinker"][cell.key]["difficulty"][number]["gain"])
            for cell in thinking
        ]
        base = f"{bin_['base_nll']['value']:.3f}"
        rows.append([f"from {bin_['from']:g}{below}", str(bin_["tokens"]), base, *gains])
    head = ["tokens that cost, nats", "number", "b=0", *(f"{_title(c)}: saved" for c in thinking)]
    return markdown_table(head, rows)


def control_table(entry: Mapping[str, Any]) -> str:
    """Nats per token that training alone and thoughts beyond it gained, a row per set of tokens,
    and a sentence where thoughts gained nothing that is sure.
    """
    rows = [
        [name, str(part["tokens"]), _or_dash(part["alone"])]
        + [estimate_cell("gain", gain) for gain in part["thoughts"].values()]
        for name, part in entry.items()
    ]
    keys = next(iter(entry.values()))["thoughts"]
    head = ["tokens", "number", "training alone gained", *(f"b={key}: beyond it" for key in keys)]
    surely = any(
        gain["low"] > 0
        for part in entry.values()
        for key, gain in part["thoughts"].items()
        if key != "0"
    )
    table = markdown_table(head, rows)
    return table if surely else f"{table}\n\n{NOTHING_SURE}"


def _or_dash(estimate: Mapping[str, float] | None) -> str:
    return "–" if estimate is None else estimate_cell("gain", estimate)


def _title(cell: Cell) -> str:
    return f"b={cell.budget} over {cell.threshold:g}" if cell.is_gated else f"b={cell.budget}"


def report_markdown(results: Mapping[str, Any], files: Sequence[str]) -> str:
    """All tables, with links to plots and heat maps."""
    model = results["model"]
    cells = sweep_cells(results["budgets"], results["thresholds"])
    parts = [
        f"# {model['source']}",
        f"Weights {model['sha256'][:16]}, thoughts at temperature {results['temperature']}, seed "
        f"{results['seed']}, 95 % intervals. `b` is the thought budget. "
        f"{_when_it_thinks(results)} {_before_texts(results['beginning'])}"
        f"{_questions(results)}",
        measures_table(results),
    ]
    for name, task in results["tasks"].items():
        parts += [f"## {name}: what thinking costs", cost_table(task, cells)]
        if task["kind"] == "text":
            parts += [
                f"## {name}: by how hard a token is without a thought",
                difficulty_table(task, cells),
            ]
        if "beside_control" in task:
            parts += [f"## {name}: beside the control", control_table(task["beside_control"])]
    parts += [f"![{name}]({name})" for name in files if name.endswith(".svg")]
    parts += [f"[{name}]({name})" for name in files if name.endswith(".html")]
    return "\n\n".join(parts) + "\n"


def _before_texts(beginning: Mapping[str, Any]) -> str:
    rule = {
        "tokenizer": "as its tokenizer puts it there",
        "bos": "by --beginning bos",
        "nothing": "by --beginning nothing",
    }[beginning["rule"]]
    if not beginning["tokens"]:
        return f"Texts begin without a special token ({rule}): their first token is not predicted."
    return f"Before every text stands `{' '.join(beginning['tokens'])}` ({rule})."


def _questions(results: Mapping[str, Any]) -> str:
    shots, chat = results["few_shot"], results["chat"]
    if not (shots or chat):
        return ""
    how = ["by the chat template, before which nothing stands"] if chat else []
    how += [f"after {shots} example{'s' if shots > 1 else ''}"] if shots else []
    return f" Questions are put {' and '.join(how)}."


def _when_it_thinks(results: Mapping[str, Any]) -> str:
    if not any(results["thresholds"]):
        return "Every token is thought about (threshold 0)."
    by = {
        "learned": "as the checkpoint's gate tells",
        "entropy": "bounded by the entropy of the prediction, because the checkpoint has no gate",
    }[results["gate"]]
    return (
        "A token is thought about where the thought is expected to save more than a threshold "
        f"(`over`, in nats), {by}; over 0: every token."
    )
