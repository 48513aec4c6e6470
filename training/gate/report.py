"""What a gate does on the held-out documents, as numbers and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from quietstar_infer.config import EffortThresholds
from quietstar_infer.gate import GateConfig, ThoughtGate
from training.gate.gate_files import Thresholds
from training.gate.labels import LabelledPositions
from training.gate.tradeoff import (
    KEPT_BY_EFFORT,
    Measured,
    calibration,
    calibration_of,
    threshold_keeping,
    tradeoff,
    tradeoffs,
)
from training.markdown import markdown_table

GateResults = dict[str, Any]
"""As it stands in `gate.json`."""

_REPORT = """\
# The thought gate of {checkpoint}

A gate with a hidden layer of {hidden_size} for thoughts of {budgets} tokens, fitted to {positions}
positions of {documents} documents ({data}). All below is measured at {held_out_positions} positions
of {held_out_documents} documents that were held out, with thoughts of {budget} tokens.

Its default threshold is {default} nats: the fewest passes that keep {medium:.0%} of the gain.
By the same rule `reasoning_effort` is {efforts}.

{chosen}

## By threshold

Thinks: share of the tokens thought about; keeps: share of the gain that is kept; passes per token.
`entropy` is that of the base prediction, which decides where there is no gate; the oracle knows the
gain of every thought.

{tradeoffs}

![Share of the gain that is kept, by passes per token](gate.svg)

## Calibration

Over all held-out positions {mean_expected:.4f} nats are expected per token, and {mean_measured:.4f}
are measured. By what is expected:

{calibration}

By thought budget, at the default threshold; `loses` is the loss above that of thinking before every
token, in nats per token:

{by_budget}
"""


def choose_thresholds(expected_N: Tensor, measured: Measured) -> Thresholds:
    """By the rule of `KEPT_BY_EFFORT`."""
    found = {e: threshold_keeping(expected_N, measured, kept) for e, kept in KEPT_BY_EFFORT.items()}
    return Thresholds(found["medium"], EffortThresholds(**found))


def gate_results(
    gate: ThoughtGate, config: GateConfig, held_out: LabelledPositions, budget: int
) -> tuple[Thresholds, GateResults]:
    """The thresholds, and everything that is reported; `budget` is one of the gate's."""
    gains_NK = gate.gains(held_out.base_NH)
    k = config.budgets.index(budget)
    measured = [_measured(held_out, number, each) for number, each in enumerate(config.budgets)]
    scores = {
        "gate": gains_NK[:, k],
        "entropy": held_out.entropy_N,
        "oracle": held_out.gain_NK[:, k],
    }
    thresholds = choose_thresholds(scores["gate"], measured[k])
    efforts = asdict(thresholds.efforts)
    return thresholds, {
        "gate": asdict(config),
        "budget": budget,
        "held_out_positions": len(held_out),
        "default_thought_threshold": thresholds.default,
        "effort_thresholds": efforts,
        "efforts": {
            name: asdict(tradeoff(scores["gate"], measured[k], value))
            for name, value in efforts.items()
        },
        "tradeoffs": {
            name: [asdict(one) for one in tradeoffs(score_N, measured[k])]
            for name, score_N in scores.items()
        },
        "kept_shares": {
            name: [
                asdict(tradeoff(score_N, measured[k], t)) for t in _keeping(score_N, measured[k])
            ]
            for name, score_N in scores.items()
        },
        "calibration": {
            "all": asdict(calibration_of(scores["gate"], measured[k].gain_N)),
            "bins": [asdict(one) for one in calibration(scores["gate"], measured[k].gain_N)],
        },
        "by_budget": {
            str(each.budget): {
                **asdict(tradeoff(gains_NK[:, number], each, thresholds.default)),
                **asdict(calibration_of(gains_NK[:, number], each.gain_N)),
            }
            for number, each in enumerate(measured)
        },
    }


def _measured(positions: LabelledPositions, number: int, budget: int) -> Measured:
    k = number
    return Measured(budget, positions.gain_NK[:, k], positions.base_nll_N, positions.nll_NK[:, k])


def _keeping(score_N: Tensor, measured: Measured) -> list[float]:
    """The thresholds on a score by the rule of the efforts."""
    return [threshold_keeping(score_N, measured, kept) for kept in KEPT_BY_EFFORT.values()]


def gate_report(results: GateResults) -> str:
    """The report in Markdown; `gate.svg` is beside it."""
    efforts = results["effort_thresholds"]
    everything = results["calibration"]["all"]
    return _REPORT.format(
        checkpoint=results["checkpoint"],
        hidden_size=results["gate"]["hidden_size"],
        budgets=", ".join(map(str, results["gate"]["budgets"])),
        **{
            name: results[name]
            for name in (
                "positions",
                "documents",
                "data",
                "held_out_positions",
                "held_out_documents",
            )
        },
        budget=results["budget"],
        default=f"{results['default_thought_threshold']:g}",
        medium=KEPT_BY_EFFORT["medium"],
        efforts=", ".join(
            f"{name} {efforts[name]:g} ({kept:.0%})" for name, kept in KEPT_BY_EFFORT.items()
        ),
        chosen=effort_table(results),
        tradeoffs=tradeoff_table(results),
        mean_expected=everything["expected"],
        mean_measured=everything["measured"],
        calibration=_calibration_table(results),
        by_budget=_budget_table(results),
    )


def effort_table(results: GateResults) -> str:
    """What the thresholds that were chosen do."""
    head = ["effort", "threshold, nats", "thinks at", "keeps", "passes per token", "loses, nats"]
    always = results["tradeoffs"]["gate"][0]
    rows = [("always", always), *reversed(results["efforts"].items())]
    return markdown_table(
        head,
        [
            [
                f"{name} (default)" if name == "medium" else name,
                f"{one['threshold']:g}",
                *_cells(one),
                f"{one['loses']:.4f}",
            ]
            for name, one in rows
        ],
    )


def tradeoff_table(results: GateResults) -> str:
    """A row of thresholds for the gate, the entropy and the oracle."""
    scores = results["tradeoffs"]
    head = ["threshold, nats"]
    head += [f"{name}: {what}" for name in scores for what in ("thinks", "keeps", "passes")]
    return markdown_table(
        head,
        [
            [f"{row[0]['threshold']:g}", *(cell for one in row for cell in _cells(one))]
            for row in zip(*scores.values(), strict=True)
        ],
    )


def _cells(one: Mapping[str, Any]) -> Sequence[str]:
    return [f"{100 * one['thinks']:.1f} %", f"{100 * one['keeps']:.1f} %", f"{one['passes']:.2f}"]


def _calibration_table(results: GateResults) -> str:
    rows = [
        [f"{one['positions']}", f"{one['expected']:.4f}", f"{one['measured']:.4f}"]
        for one in results["calibration"]["bins"]
    ]
    return markdown_table(["positions", "expected, nats", "measured, nats"], rows)


def _budget_table(results: GateResults) -> str:
    head = ["budget", "thinks at", "keeps", "passes per token", "loses", "expected", "measured"]
    rows = [
        [budget, *_cells(one), *(f"{one[fact]:.4f}" for fact in ("loses", "expected", "measured"))]
        for budget, one in results["by_budget"].items()
    ]
    return markdown_table(head, rows)
