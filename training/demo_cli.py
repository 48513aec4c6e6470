"""The commands of the demonstration that teach and show it; a part of `training.cli`."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.demo_model import DemoModelRecipe

WORKERS = 2


def make_demo_model(options: argparse.Namespace) -> None:
    """Make the demonstration model and print what was measured."""
    from training.checkpoint import prepare_output
    from training.demo_model import DemoModelRecipe, build_demo_model
    from training.report import accuracy_table

    prepare_output(options.out, force=options.force)
    recipe = DemoModelRecipe()
    if options.quick:
        recipe = quick(recipe)
    results = build_demo_model(recipe, options.out, options.trunk, WORKERS)
    print(accuracy_table(results))
    print(f"written to {options.out}")


def quick(recipe: "DemoModelRecipe") -> "DemoModelRecipe":
    """The recipe in a size that shows that everything works, and nothing else."""
    trunk = recipe.trunk
    return replace(
        recipe,
        trunk=replace(
            trunk,
            training=replace(trunk.training, steps=20),
            evaluation=replace(trunk.evaluation, problems=5),
        ),
        lesson=replace(recipe.lesson, steps=2),
        seeds=recipe.seeds[:2],
        evaluation=replace(recipe.evaluation, problems=5),
        documents=2,
        watched=1,
        watch_every=1,
    )


def report_demo(options: argparse.Namespace) -> None:
    """Print all tables of what was measured, and draw the plots."""
    from training.report import tables

    results = json.loads(options.results.read_text(encoding="utf-8"))
    print(tables(results))
    if options.plots:
        from training.plots import draw_plots

        for file in draw_plots(results, options.plots):
            print(f"written to {file}")


def evaluate_served(options: argparse.Namespace) -> None:
    """Ask a server the held-out problems and print its accuracy."""
    from training.corpus import FAMILIES
    from training.evaluate import Evaluation
    from training.serve_eval import served_tables

    print(served_tables(options.url, list(FAMILIES), Evaluation(problems=options.problems)))


def problems(text: str) -> int:
    """A number of problems, for argparse."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100000")
    return int(text)


def add_demo_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`demo-model`, `demo-report` and `demo-serve-eval`."""
    parser = commands.add_parser(
        "demo-model",
        help="make the demonstration model from nothing, taught to think",
        description="Generate the corpus, train tokenizer and trunk, teach thinkers of three seeds "
        "by Quiet-STaR and a control for each, measure all of them, and write the first thinker "
        "with a model card and results.json. About an hour on two CPU cores. The same machine "
        "makes the same model.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that has files")
    parser.add_argument(
        "--trunk", type=Path, metavar="DIR", help="teach this one (demo-trunk's), train none"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of everything: a trial, no model"
    )
    parser.set_defaults(run=make_demo_model)

    parser = commands.add_parser(
        "demo-report",
        help="tables and plots of what demo-model measured",
        description="Print the tables of a results.json that demo-model wrote; with --plots draw "
        "its plots, too (needs matplotlib).",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the results.json")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="folder for the plots (SVG)")
    parser.set_defaults(run=report_demo)

    parser = commands.add_parser(
        "demo-serve-eval",
        help="accuracy of a served demonstration model by thought budget",
        description="Ask a running server held-out problems through /v1/completions, with thought "
        "budgets 0 to 16, greedy and sampled, and print the share of right answers.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://localhost:8000")
    parser.add_argument(
        "--problems", type=problems, default=500, metavar="N", help="per family (default 500)"
    )
    parser.set_defaults(run=evaluate_served)
