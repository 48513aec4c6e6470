"""The commands of the demonstration: its corpus, its making, its measurements."""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from training.options import add_output, add_problems, count, seed, temperature

if TYPE_CHECKING:
    from training.demo.build import DemoModelRecipe

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
WORKERS = 2


def show_corpus(options: argparse.Namespace) -> None:
    """Print documents of the corpus, one per line."""
    from training.demo.corpus.documents import documents, documents_without_asides

    stream = documents_without_asides if options.no_asides else documents
    for text in itertools.islice(stream(options.seed), options.show):
        print(text)


def make_demo_trunk(options: argparse.Namespace) -> None:
    """Train and write the trunk of the demonstration model, and say how good it is."""
    from training.trainer.checkpoint import prepare_output
    from training.demo.base_model_build import DemoRecipe, build_demo

    prepare_output(options.out, force=options.force)
    recipe = DemoRecipe()
    training = replace(
        recipe.training, seed=options.seed, steps=options.steps or recipe.training.steps
    )
    print(build_demo(replace(recipe, training=training), options.out))
    print(f"written to {options.out}")


def make_demo_model(options: argparse.Namespace) -> None:
    """Make the demonstration model and print what was measured."""
    from training.trainer.checkpoint import prepare_output
    from training.demo.build import DemoModelRecipe, build_demo_model
    from training.demo.report import accuracy_table

    prepare_output(options.out, force=options.force)
    recipe = DemoModelRecipe()
    if options.quick:
        recipe = quick(recipe)
    results = build_demo_model(recipe, options.out, options.trunk, WORKERS)
    print(accuracy_table(results))
    print(f"written to {options.out}")


def quick(recipe: "DemoModelRecipe") -> "DemoModelRecipe":
    """The recipe in a size that shows that everything works, and nothing else."""
    from training.demo.corpus.problems import LONGEST_WORKING

    trunk, lesson = recipe.trunk, recipe.lesson
    return replace(
        recipe,
        trunk=replace(
            trunk,
            training=replace(trunk.training, steps=20),
            tokenizer_documents=2000,
            evaluation=replace(trunk.evaluation, problems=5),
        ),
        lesson=replace(
            lesson,
            data=replace(lesson.data, eval_documents=lesson.run.sequences_per_device),
            run=replace(lesson.run, steps=2, eval_every=1),
        ),
        seeds=recipe.seeds[:2],
        evaluation=replace(recipe.evaluation, problems=5, budgets=(0, LONGEST_WORKING)),
        documents=2,
        watched=1,
    )


def evaluate_demo(options: argparse.Namespace) -> None:
    """Print the accuracy of a demonstration model by thought budget."""
    from quietstar_infer.config import load_tokenizer
    from training.trainer.checkpoint import load_trunk
    from training.demo.forced_thoughts import Evaluation, accuracy_table, markdown

    evaluation = Evaluation(
        problems=options.problems, temperature=options.temperature, seed=options.seed
    )
    model = load_trunk(options.model)
    print(markdown(accuracy_table(model, load_tokenizer(options.model), evaluation)))


def report_demo(options: argparse.Namespace) -> None:
    """Print all tables of what was measured, and draw the plots."""
    from training.demo.report import tables

    results = json.loads(options.results.read_text(encoding="utf-8"))
    print(tables(results))
    if options.plots:
        from training.demo.plots import draw_plots

        for file in draw_plots(results, options.plots):
            print(f"written to {file}")


def evaluate_served(options: argparse.Namespace) -> None:
    """Ask a server the held-out problems and print its accuracy."""
    from training.demo.corpus.documents import FAMILIES
    from training.demo.forced_thoughts import Evaluation
    from training.demo.served_accuracy import served_tables

    print(served_tables(options.url, list(FAMILIES), Evaluation(problems=options.problems)))


def add_corpus(commands: Commands) -> None:
    """`corpus`: look at the training text."""
    parser = commands.add_parser(
        "corpus",
        help="look at the text that the demonstration model learns from",
        description="Print documents of the generated corpus, one per line. The same seed prints "
        "the same documents.",
    )
    parser.add_argument(
        "--show", type=count, default=10, metavar="N", help="documents (default 10)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="default 0, as in training")
    parser.add_argument(
        "--no-asides",
        action="store_true",
        help="nobody thinks aloud: what is read while it learns to think quietly",
    )
    parser.set_defaults(run=show_corpus)


def add_demo_model(commands: Commands) -> None:
    """`demo-model`: make the demonstration model."""
    parser = commands.add_parser(
        "demo-model",
        help="make the demonstration model from nothing, taught to think",
        description="Generate the corpus, train tokenizer and trunk, teach thinkers of three seeds "
        "by recipes/demo.yaml and a control for each, measure all of them, and write the first "
        "thinker with a model card and results.json. About an hour on two CPU cores. The same "
        "machine makes the same model.",
    )
    add_output(parser)
    parser.add_argument(
        "--trunk", type=Path, metavar="DIR", help="teach this one (demo-trunk's), train none"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of everything: a trial, no model"
    )
    parser.set_defaults(run=make_demo_model)


def add_demo_trunk(commands: Commands) -> None:
    """`demo-trunk`: the first half of `demo-model`."""
    parser = commands.add_parser(
        "demo-trunk",
        help="train the demonstration model's trunk from nothing",
        description="Generate the corpus, train tokenizer and trunk on one CPU thread (about half "
        "an hour) and write a Quiet-STaR checkpoint whose mixing head is still closed: what "
        "demo-model --trunk and recipes/demo.yaml teach. The same seed on the same machine makes "
        "the same trunk.",
    )
    add_output(parser)
    parser.add_argument("--seed", type=seed, default=0, help="default 0")
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="fewer steps for a quick look; default: the recipe's",
    )
    parser.set_defaults(run=make_demo_trunk)


def add_demo_eval(commands: Commands) -> None:
    """`demo-eval`: measure a trunk."""
    parser = commands.add_parser(
        "demo-eval",
        help="accuracy of a demonstration model that is made to think aloud",
        description="Ask held-out problems and print the share of right answers: answered at once, "
        "and after a thought of b tokens that is forced into the text between two dashes.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint folder")
    add_problems(parser)
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=0.0,
        metavar="T",
        help="of the thoughts: 0, the default, writes the likeliest tokens, 1 samples",
    )
    parser.add_argument("--seed", type=seed, default=1, help="which problems are drawn (default 1)")
    parser.set_defaults(run=evaluate_demo)


def add_demo_report(commands: Commands) -> None:
    """`demo-report`: what `demo-model` measured."""
    parser = commands.add_parser(
        "demo-report",
        help="tables and plots of what demo-model measured",
        description="Print the tables of a results.json that demo-model wrote; with --plots draw "
        "its plots, too (needs matplotlib).",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the results.json")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="folder for the plots (SVG)")
    parser.set_defaults(run=report_demo)


def add_demo_serve_eval(commands: Commands) -> None:
    """`demo-serve-eval`: the demonstration as its users see it."""
    parser = commands.add_parser(
        "demo-serve-eval",
        help="accuracy of a served demonstration model by thought budget",
        description="Ask a running server held-out problems through /v1/completions, with thought "
        "budgets 0 to 16, greedy and sampled, and print the share of right answers.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://localhost:8000")
    add_problems(parser)
    parser.set_defaults(run=evaluate_served)


def add_demo_commands(commands: Commands) -> None:
    """All of them."""
    for add in (
        add_corpus,
        add_demo_model,
        add_demo_trunk,
        add_demo_eval,
        add_demo_report,
        add_demo_serve_eval,
    ):
        add(commands)
