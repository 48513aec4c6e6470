"""The command line: `python -m benchmarks.engine [table|profile|gpu] [options]`."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.engine_handle import EngineEndedError
from benchmarks.engine.gpu import GpuSettings, PassTime, measure_passes, passes_table
from benchmarks.engine.machine import Machine, describe_machine
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.settings import NAMES, Progress, Settings
from benchmarks.engine.measures.table import measure
from benchmarks.engine.profile import Profile, ProfileSettings, profile, profile_table
from benchmarks.engine.report import measures_table, write_json, write_plot
from benchmarks.engine.shapes import SHAPES
from quietstar_infer.errors import CheckpointError, UnsupportedError

_PROGRAM = "python -m benchmarks.engine"


def progress_lines() -> Progress:
    """Prints messages with the seconds since the start on standard error."""
    start = time.monotonic()

    def show(message: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s] {message}", file=sys.stderr, flush=True)

    return show


def print_machine(machine: Machine) -> None:
    print("\n".join(machine.lines()), end="\n\n", flush=True)


def run_table(options: argparse.Namespace) -> None:
    """The table of ratios."""
    settings = Settings(
        options.model,
        only=tuple(options.only),
        repeats=options.repeats,
        larger_repeats=max(1, options.repeats // 2),
        max_thought_burst=options.max_thought_burst,
        documents=options.documents,
    )
    machine = describe_machine()
    print_machine(machine)
    measures: list[Measured] = []
    try:
        measures.extend(measure(settings, options.device, progress_lines()))
    finally:  # also when interrupted: what has been measured by then
        print(measures_table(measures))
    if options.json:
        write_json(options.json, machine, "table", [each.figures() for each in measures])
    if options.plot:
        write_plot(options.plot, machine, measures)


def run_profile(options: argparse.Namespace) -> None:
    """Where the time of a step goes."""
    settings = ProfileSettings(
        options.model,
        batches=tuple(options.batches),
        max_thought_burst=options.max_thought_burst,
    )
    machine = describe_machine()
    print_machine(machine)
    profiles: list[Profile] = []
    try:
        profiles.extend(profile(settings, options.device, progress_lines()))
    finally:
        print(profile_table(profiles))
    if options.json:
        write_json(options.json, machine, "profile", [asdict(each) for each in profiles])


def run_gpu(options: argparse.Namespace) -> None:
    """Milliseconds per pass."""
    settings = GpuSettings(
        SHAPES[options.shape],
        tuple(options.batches),
        tuple(options.budgets),
        options.repeats,
        max_thought_burst=options.max_thought_burst,
    )
    machine = describe_machine()
    print_machine(machine)
    times: list[PassTime] = []
    try:
        times.extend(measure_passes(settings, options.device, progress_lines()))
    finally:
        print(passes_table(times))
    if options.json:
        write_json(options.json, machine, "gpu", [asdict(each) for each in times])


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="What thinking costs on this machine, beside stock vLLM, as ratios measured "
        "side by side. Leave the machine alone meanwhile.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_table(commands)
    _add_profile(commands)
    _add_gpu(commands)
    return parser


def _add_table(commands: Any) -> None:
    parser = commands.add_parser("table", help="ratios, and what they are to reach")
    _add_common(parser)
    _add_model(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (.svg, .png)")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, help="these ratios (default: all)"
    )
    _add_repeats(
        parser, Settings.repeats, "how often each side is measured; the larger model half as often"
    )
    parser.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help='texts to be thought about, lines of JSON with a "text", measured over and over where '
        "they are too few (default: held-out ones of the demonstration, all different)",
    )
    parser.set_defaults(run=run_table)


def _add_profile(commands: Any) -> None:
    parser = commands.add_parser("profile", help="where the time of an engine step goes")
    _add_common(parser)
    _add_model(parser)
    _add_numbers(parser, "--batches", ProfileSettings.batches, "batch sizes")
    parser.set_defaults(run=run_profile)


def _add_gpu(commands: Any) -> None:
    parser = commands.add_parser(
        "gpu",
        help="milliseconds per pass by batch and budget, for a model of random weights",
        description="Milliseconds per pass by batch and budget, for a model of random weights that "
        "is made on the spot. Runs on a CPU, too, if the model is small enough.",
    )
    _add_common(parser)
    parser.add_argument(
        "--shape", choices=SHAPES, default="mistral-7b", help="of the model (default: %(default)s)"
    )
    _add_numbers(parser, "--batches", GpuSettings.batches, "batch sizes")
    _add_numbers(parser, "--budgets", GpuSettings.budgets, "thought budgets", least=0)
    _add_repeats(parser, GpuSettings.repeats, "how often each load runs")
    parser.set_defaults(run=run_gpu)


def _add_numbers(
    parser: argparse.ArgumentParser, name: str, default: tuple[int, ...], what: str, least: int = 1
) -> None:
    parser.add_argument(
        name,
        nargs="+",
        type=_at_least(least),
        default=default,
        metavar="N",
        help=f"{what} (default: {' '.join(map(str, default))})",
    )


def _add_repeats(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    parser.add_argument(
        "--repeats",
        type=_at_least(1),
        default=default,
        metavar="N",
        help=f"{what} (default: %(default)s)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("models/demo"),
        metavar="FOLDER",
        help="a Quiet-STaR checkpoint (default: %(default)s)",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-thought-burst",
        type=_at_least(1),
        metavar="N",
        help="the server's option of this name (default: the server's)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, too")
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too small, must be {least} or more")
        return value

    return number


def benchmark_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, 1 where an engine ended by itself, 2 for a model or file
    that cannot be used."""
    options = make_parser().parse_args(arguments)
    # SIGTERM becomes an exception, so that the engines are ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        options.run(options)
    except (CheckpointError, UnsupportedError, OSError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    except EngineEndedError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
