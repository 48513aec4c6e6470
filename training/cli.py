"""The command line: `python -m training COMMAND`.

Commands import what they need when they run, so that --help and mistakes are answered at once.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quietstar_infer.errors import CheckpointError
from training.benchmark import add_benchmark_command
from training.demo_cli import add_demo_commands
from training.errors import UsageError

LARGEST = 2**32 - 1


def whole_number(text: str, least: int) -> int:
    """Parse a whole number, for argparse."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))
    if not digits or not least <= int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from {least} to {LARGEST}"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 up."""
    return whole_number(text, 1)


def seed(text: str) -> int:
    """A whole number from 0 up."""
    return whole_number(text, 0)


def temperature(text: str) -> float:
    """A number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def show_corpus(options: argparse.Namespace) -> None:
    """Print documents of the corpus, one per line."""
    from training.corpus import documents

    for text in itertools.islice(documents(options.seed), options.show):
        print(text)


def make_demo_trunk(options: argparse.Namespace) -> None:
    """Train and write the demonstration model, and say how good it is."""
    from training.checkpoint import prepare_output
    from training.demo import DemoRecipe, build_demo

    prepare_output(options.out, force=options.force)
    recipe = DemoRecipe()
    training = replace(
        recipe.training, seed=options.seed, steps=options.steps or recipe.training.steps
    )
    print(build_demo(replace(recipe, training=training), options.out))
    print(f"written to {options.out}")


def evaluate_demo(options: argparse.Namespace) -> None:
    """Print the accuracy of a demonstration model by thought budget."""
    from quietstar_infer.config import load_tokenizer
    from training.checkpoint import load_trunk
    from training.evaluate import Evaluation, accuracy_table, markdown

    evaluation = Evaluation(
        problems=options.problems, temperature=options.temperature, seed=options.seed
    )
    model = load_trunk(options.model)
    print(markdown(accuracy_table(model, load_tokenizer(options.model), evaluation)))


def train_thinker(options: argparse.Namespace) -> None:
    """Train a quiet thinker by a recipe and export it."""
    from training.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    from training.run import train  # after the recipe: this one takes seconds

    print(f"written to {train(recipe, resume=options.resume)}")


def export_thinker(options: argparse.Namespace) -> None:
    """Export the best checkpoint of a run."""
    from training.export import export_run

    print(f"written to {export_run(options.run_folder)}")


def add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`train`: from a trunk to a quiet thinker."""
    parser = commands.add_parser(
        "train",
        help="teach a model to think, by a recipe",
        description="Train a trunk, or a Quiet-STaR checkpoint, as a recipe says, and export the "
        "best checkpoint to the folder `model` of the run's output. On several GPUs: "
        "`torchrun --nproc-per-node 8 -m training train ...`, with FSDP: "
        "`accelerate launch --use_fsdp -m training train ...`.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file (recipes/)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrule the recipe, as in --set run.steps=50; may be given again",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in run.output")
    parser.set_defaults(run=train_thinker)


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`export`: a run that was stopped can be served, too."""
    parser = commands.add_parser(
        "export",
        help="export the best checkpoint of a run that did not end",
        description="Write the best checkpoint of a run to its folder `model`, in the official "
        "layout. `train` does so at its end.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run's output folder")
    parser.set_defaults(run=export_thinker)


def add_corpus(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    parser.set_defaults(run=show_corpus)


def add_demo_trunk(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`demo-trunk`: make the demonstration model."""
    parser = commands.add_parser(
        "demo-trunk",
        help="train the demonstration model from nothing",
        description="Generate the corpus, train tokenizer and trunk on one CPU thread (about 20 "
        "minutes) and write a Quiet-STaR checkpoint whose mixing head is still closed. "
        "The same seed on the same machine makes the same model.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that has files")
    parser.add_argument("--seed", type=seed, default=0, help="default 0")
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="fewer steps for a quick look; default: the recipe's",
    )
    parser.set_defaults(run=make_demo_trunk)


def add_demo_eval(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`demo-eval`: measure a demonstration model."""
    parser = commands.add_parser(
        "demo-eval",
        help="accuracy of a demonstration model by thought budget",
        description="Ask held-out problems and print the share of right answers: answered at once, "
        "and after a thought of b tokens that is forced into the text between two dashes.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint folder")
    parser.add_argument(
        "--problems", type=count, default=500, metavar="N", help="per family (default 500)"
    )
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=0.0,
        metavar="T",
        help="of the thoughts: 0, the default, writes the likeliest tokens, 1 samples",
    )
    parser.add_argument("--seed", type=seed, default=1, help="which problems are drawn (default 1)")
    parser.set_defaults(run=evaluate_demo)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train the models that quietstar_infer serves.",
        epilog="Each command has its own --help.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_train(commands)
    add_export(commands)
    add_corpus(commands)
    add_demo_trunk(commands)
    add_demo_eval(commands)
    add_demo_commands(commands)
    add_benchmark_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 1 after a one-line error."""
    options = build_parser().parse_args(arguments)
    # One thread is the recipe's; without this the tokenizer would start its own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options.run(options)
    except BrokenPipeError:  # `corpus --show 1000 | head`: nobody reads on, which is fine
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UsageError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
