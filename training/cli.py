"""The command line: `python -m training COMMAND`.

Commands import what they need when they run, so that --help and mistakes are answered at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from quietstar_infer.errors import CheckpointError
from training.demo.load_test_answers import add_answers_command
from benchmarks.training.step_cost import add_benchmark_command
from training.demo.cli import add_demo_commands
from training.errors import UsageError
from training.evaluations.cli import add_evaluation_commands


def is_main_process() -> bool:
    """Whether this is the process that speaks for all those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def train_thinker(options: argparse.Namespace) -> None:
    """Train a quiet thinker by a recipe and export it."""
    from training.trainer.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    from training.trainer.run import train  # after the recipe: this one takes seconds

    try:
        model = train(recipe, resume=options.resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the checkpoints in {recipe.run.output} are whole; add --resume to go on"
        ) from None
    if is_main_process():
        print(f"written to {model}")


def export_thinker(options: argparse.Namespace) -> None:
    """Export the best checkpoint of a run."""
    from training.trainer.export import export_run

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
    add_evaluation_commands(commands)
    add_demo_commands(commands)
    add_answers_command(commands)
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
        # A wrong recipe is wrong in every process.
        if is_main_process() or not isinstance(error, UsageError):
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        if is_main_process():
            print(": ".join(["stopped", *map(str, stopped.args)]), file=sys.stderr)
        return 130
    return 0
