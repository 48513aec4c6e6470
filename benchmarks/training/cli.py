"""The command line: `python -m benchmarks.training COMMAND`.

This module imports no torch: a measurement's peak memory would begin with that of its parent
process.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from quietstar_infer.errors import CheckpointError
from training.errors import UsageError
from training.options import Commands, add_evaluated_model, count


def run_benchmark(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 1 after a one-line error."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (UsageError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description="Measure what training and scoring with thoughts cost.",
        epilog="Each command has its own --help.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_step(commands)
    _add_scoring_speed(commands)
    return parser


def _add_step(commands: Commands) -> None:
    parser = commands.add_parser(
        "step",
        help="time and memory of a training step",
        description="Measure a training step with thoughts, forward and backward, on one CPU "
        "thread: with the default activation checkpointing, which recomputes the feed-forward "
        "parts in the backward pass, without it, with whole layers recomputed, and the dense "
        "reference step, beside figures of the official code. Takes about ten minutes.",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="steps of each measurement, of which the fastest counts (default 3)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.set_defaults(run=_step)


def _step(options: argparse.Namespace) -> None:
    from benchmarks.training.step_cost import report_step_costs

    if options.repeats < 1:
        raise UsageError("--repeats wants a whole number from 1 up")
    report_step_costs(options.repeats, options.json)


def _add_scoring_speed(commands: Commands) -> None:
    parser = commands.add_parser(
        "scoring-speed",
        help="how fast given text is scored with thoughts, beside one position after another",
        description="Score a text at all positions at once, and the same positions one after "
        "another, at each budget in turn, and print both as a table: tokens per second, the median "
        "of the rounds.",
    )
    add_evaluated_model(parser)
    parser.add_argument(
        "--tokens", type=count, default=256, metavar="N", help="of the text (default 256)"
    )
    parser.add_argument(
        "--rounds", type=count, default=3, metavar="N", help="each of another text (default 3)"
    )
    parser.set_defaults(run=_scoring_speed)


def _scoring_speed(options: argparse.Namespace) -> None:
    from benchmarks.training.scoring_speed import scoring_speed

    print(scoring_speed(options))
