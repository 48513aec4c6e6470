"""Plots of `results.json`, for the documentation."""

from pathlib import Path
from statistics import mean, stdev

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes

from training.demo.adaptive.plot import passes_plot
from training.demo.report import WEIGHT_BINS, Results, accuracies, budgets_of, over_seeds
from training.demo.token_statistics import KINDS

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "quietstar"  # the same plot is the same file


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Write all plots as SVG files."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "passes": passes_plot,
        "accuracy": accuracy_plot,
        "weight-course": course_plot,
        "weight-distribution": distribution_plot,
    }
    files = []
    for name, plot in plots.items():
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
        plot(results, *axes)
        files.append(folder / f"{name}.svg")
        figure.savefig(files[-1], metadata={"Date": None})
        pyplot.close(figure)
    return files


def accuracy_plot(results: Results, left: Axes, right: Axes) -> None:
    """Right answers by budget, a family per plot, with base model and control."""
    for axes, family in zip((left, right), results["trunk"], strict=True):
        budgets = budgets_of(results, family)
        for thoughts in ("greedy", "sampled"):
            shares = [accuracies(results, thoughts, family, budget) for budget in budgets]
            axes.errorbar(
                [int(budget) for budget in budgets],
                [100 * mean(share) for share in shares],
                [100 * stdev(share) if len(share) > 1 else 0 for share in shares],
                marker="o",
                capsize=3,
                label=f"{thoughts} thoughts",
            )
        control = mean(control[family] for control in results["controls"])
        axes.axhline(100 * control, color="grey", linestyle="--", label="control, no thoughts")
        axes.axhline(
            100 * results["trunk"][family], color="grey", linestyle=":", label="base model"
        )
        axes.set(title=family, xlabel="thought budget", ylabel="right answers, %", ylim=(0, 103))
        axes.legend(loc="upper left", fontsize="small")


def course_plot(results: Results, left: Axes, right: Axes) -> None:
    """Mixing weight and loss of the kinds of tokens in the course of training, over all seeds."""
    steps = [entry["step"] for entry in results["thinkers"][0]["course"]]
    for axes, fact in ((left, "mixing_weight"), (right, "nll")):
        for kind in KINDS:
            course = [
                over_seeds(results, lambda t: t["course"][n]["kinds"][kind][fact])  # noqa: B023
                for n in range(len(steps))
            ]
            line = axes.plot(steps, [mean(values) for values in course], label=kind)
            low, high = [min(values) for values in course], [max(values) for values in course]
            axes.fill_between(steps, low, high, color=line[0].get_color(), alpha=0.2)
        axes.set(xlabel="training step")
    left.set(ylabel="mean mixing weight")
    right.set(ylabel="loss after a thought, nats")
    left.legend(fontsize="small")


def distribution_plot(results: Results, left: Axes, right: Axes) -> None:
    """The first thinker's mixing weights after sampled thoughts; and their mean by budget."""
    tokens = results["thinkers"][0]["sampled"]["tokens"]
    for kind, counts in tokens["12"]["histogram"].items():
        left.stairs([n / max(1, sum(counts)) for n in counts], WEIGHT_BINS, fill=True, alpha=0.6)
        by_budget = [entry["kinds"][kind]["mixing_weight"] for entry in tokens.values()]
        right.plot([int(budget) for budget in tokens], by_budget, marker="o", label=kind)
    left.set(xlabel="mixing weight, b = 12", ylabel="share of the tokens", xlim=(-0.25, 1.05))
    right.set(xlabel="thought budget", ylabel="mean mixing weight")
    right.legend(fontsize="small")
