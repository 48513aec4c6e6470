"""The command line: `python -m training COMMAND`.

Commands import what they need when they run, so that --help and mistakes are answered at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from quietstar_infer.errors import CheckpointError
from training.demo.cli import add_demo_commands
from training.errors import TrainingStopped, UsageError
from training.evaluations.cli import add_evaluate
from training.gate.cli import add_gate
from training.options import Commands

# Commands that are now in benchmarks.training, and their names there.
_MOVED = {"benchmark": "step", "scoring-speed": "scoring-speed"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or after a one-line error 2 for a mistake in the call,
    its recipe or its data, 1 for anything else.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in _MOVED:
        new = f"python -m benchmarks.training {_MOVED[given[0]]}"
        print(f"error: {given[0]} is now `{new}`", file=sys.stderr)
        return 2
    options = build_parser().parse_args(given)
    # One thread is the recipe's; without this the tokenizer would start its own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options.run(options)
    except BrokenPipeError:  # `corpus --show 1000 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UsageError, TrainingStopped, CheckpointError, OSError) as error:
        # A wrong recipe is wrong in every process, a run stops in all of them.
        if is_main_process() or not isinstance(error, UsageError | TrainingStopped):
            print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stopped:
        if is_main_process():
            print(": ".join(["stopped", *map(str, stopped.args)]), file=sys.stderr)
        return 130
    return 0


def is_main_process() -> bool:
    """Whether this is the one of a launcher's processes that prints for all of them."""
    return os.environ.get("RANK", "0") == "0"


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train the models that quietstar_infer serves.",
        epilog="Each command has its own --help.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_gains(commands)
    _add_export(commands)
    add_gate(commands)
    add_evaluate(commands)
    add_demo_commands(commands)
    return parser


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="teach a model to think, by a recipe",
        description="Train a base model, or a Quiet-STaR checkpoint, by a recipe, and export the "
        "best checkpoint to the folder `model` of the run's output. On several GPUs: "
        "`torchrun --nproc-per-node 8 -m training train ...`, with FSDP: "
        "`accelerate launch --use_fsdp -m training train ...`. The progress bar shows the losses "
        "of the latest step's text in nats per token, after thoughts (nll) and without (base_nll), "
        "what thoughts gained (gain, their difference), their mean weight (mixing_weight: 0, no "
        "effect), nats per thought token (thought_entropy: towards 0 all thoughts are the same), "
        "and text tokens per second. docs/training.md explains every number.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file (recipes/)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrule the recipe, as in --set run.steps=50; may be given again",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in run.output; what does not change its numbers may have "
        "changed (docs/training.md)",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="then train the control as well, into the folder `control` of the run's output: the "
        "same data, steps and rates without thoughts; as `control: true` in the recipe",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing and write nothing: say how many pieces, tokens and steps a pass over "
        "the text has, and time and memory of a step, estimated and then measured on one",
    )
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from training.trainer.recipe import load_recipe

    overrides = [*options.set, *(["control=true"] if options.control else [])]
    recipe = load_recipe(options.recipe, overrides)
    if options.dry_run:
        from training.trainer.dry_run import dry_run

        print(dry_run(recipe))
        return
    from training.trainer.run import train  # after the recipe: this import takes seconds

    try:
        model = train(recipe, resume=options.resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the checkpoints in {recipe.run.output} are whole; add --resume to go on"
        ) from None
    if is_main_process():
        if recipe.control:
            _print_gains([recipe.run.output])
        print(f"written to {model}")


def _add_gains(commands: Commands) -> None:
    parser = commands.add_parser(
        "gains",
        help="what thoughts gained in runs beyond what training alone did in their controls",
        description="Compare runs that were trained with --control, of several seeds for example, "
        "with their controls: losses on the evaluation text, what training alone gained and what "
        "thoughts gained beyond it, and whether that is more than the noise over the runs.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the output of a run")
    parser.set_defaults(run=lambda options: _print_gains(options.runs))


def _print_gains(runs: Sequence[Path]) -> None:
    from training.trainer.control import gains_table, run_gains, verdict

    gains = [run_gains(run) for run in runs]
    print(f"{gains_table(gains)}\n\n{verdict(gains)}")


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="export the best checkpoint of a run that did not end, or in another precision",
        description="Write the best checkpoint of a run to its folder `model`, in the official "
        "layout. `train` does so at its end.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run's output folder")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights (default: run.export_dtype of the run's recipe)",
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from training.trainer.export import export_run

    print(f"written to {export_run(options.run_folder, options.dtype)}")
