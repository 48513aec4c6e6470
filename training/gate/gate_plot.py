"""The plot of a gate's report: gain that is kept, by passes per token, and calibration."""

from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes

from training.gate.report import GateResults

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "quietstar"  # the same plot is the same file


def draw_gate(results: GateResults, path: Path) -> None:
    """Write the plot as an SVG file."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    _kept_plot(results, axes[0])
    _calibration_plot(results, axes[1])
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _kept_plot(results: GateResults, axes: Axes) -> None:
    for name, row in results["tradeoffs"].items():
        axes.plot(
            [one["passes"] for one in row[1:]],
            [100 * one["keeps"] for one in row[1:]],
            marker="o",
            markersize=3,
            label=name,
        )
    chosen = results["efforts"]["medium"]
    axes.plot(chosen["passes"], 100 * chosen["keeps"], "k*", markersize=10, label="default")
    always = results["tradeoffs"]["gate"][0]["passes"]
    axes.axvline(always, color="grey", linestyle=":", label="always")
    axes.set(xlabel="passes per token", ylabel="gain that is kept, %", ylim=(0, 103))
    axes.legend(fontsize="small")


def _calibration_plot(results: GateResults, axes: Axes) -> None:
    bins = results["calibration"]["bins"]
    expected = [one["expected"] for one in bins]
    axes.plot(expected, expected, color="grey", linestyle=":", label="calibrated")
    axes.plot(expected, [one["measured"] for one in bins], marker="o", label="gate")
    axes.set(xlabel="expected gain, nats", ylabel="measured, nats")
    axes.set_xscale("symlog", linthresh=1e-3)
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.legend(fontsize="small")
