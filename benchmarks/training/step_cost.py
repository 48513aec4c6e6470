"""`python -m training benchmark`: what a training step costs, beside dense and official code.

Every measurement runs in a fresh process on one thread, so that its peak memory is its own. This
module imports no torch: the peak memory of a process begins with its parent's.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from training.errors import UsageError

SHAPES = ((2002, 256), (32002, 128))
"""Vocabulary and tokens, as the official code was measured."""
OFFICIAL = {(2002, 256): (9.29, 1541.0), (32002, 128): (14.73, 2436.0)}
"""CPU seconds and MiB of the official code (ezelikman/quiet-star at 892446b, unmodified, SDPA) for
one forward and backward of the same model on one thread: fp32, n_ahead 12, n_ahead_talk 4, n_passes
2, batch 1. Quoted from an earlier measurement: the code needs transformers 4.37."""
OFFICIAL_BUDGET = 9
VERSIONS = ("fast", "keeping all", "recomputing layers", "dense")
BUDGETS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Row:
    """What was measured: the least CPU seconds of the repeats, the growth of peak memory in MiB."""

    version: str
    vocab_size: int
    positions: int
    budget: int
    cpu_seconds: float
    peak_mib: float


def measure_row(version: str, vocab_size: int, positions: int, budget: int, repeats: int) -> Row:
    """Run `benchmarks.training.measurement` in a fresh process."""
    task = {
        "version": version,
        "vocab_size": vocab_size,
        "positions": positions,
        "budget": budget,
        "repeats": repeats,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.measurement", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Row(version, vocab_size, positions, budget, **json.loads(done.stdout))


def compare(repeats: int) -> Iterator[Row]:
    """The official code's figures and all our versions, in the shapes of the former."""
    for vocab_size, positions in SHAPES:
        quoted = OFFICIAL[vocab_size, positions]
        yield Row("official (quoted)", vocab_size, positions, OFFICIAL_BUDGET, *quoted)
        for version in VERSIONS:
            yield measure_row(version, vocab_size, positions, OFFICIAL_BUDGET, repeats)


def lengthen(repeats: int) -> Iterator[Row]:
    """The fast version by thought length."""
    for budget in BUDGETS:
        yield measure_row("fast", *SHAPES[0], budget, repeats)


def comparison_line(row: Row) -> str:
    """A line of the first table."""
    seconds, mib = OFFICIAL[row.vocab_size, row.positions]
    return (
        f"| {row.vocab_size} | {row.positions} | {row.version} | {row.cpu_seconds:.2f} "
        f"| {row.peak_mib:.0f} | {row.cpu_seconds / seconds:.2f} | {row.peak_mib / mib:.2f} |"
    )


def length_line(row: Row) -> str:
    """A line of the second table: 2 paths per position of b + START + END + 3 true tokens."""
    tokens = row.positions * 2 * (row.budget + 5)
    return (
        f"| {row.budget} | {tokens} | {row.cpu_seconds:.2f} | {row.peak_mib:.0f} "
        f"| {1e3 * row.cpu_seconds / tokens:.2f} | {1024 * row.peak_mib / tokens:.0f} |"
    )


def shown(
    title: str, header: str, rows: Iterable[Row], line: Callable[[Row], str]
) -> Iterator[Row]:
    """Print a Markdown table while its rows are measured, and hand them on."""
    print(f"{title}\n\n{header}\n|{'---|' * (header.count('|') - 1)}", flush=True)
    for row in rows:
        print(line(row), flush=True)
        yield row
    print()


def benchmark(repeats: int) -> list[Row]:
    """Measure and print everything."""
    return [
        *shown(
            "One training step, forward and backward: 9 thought tokens, 4 tokens ahead, 2\n"
            "thoughts per position, batch 1, fp32, one thread. Time and memory as shares of the\n"
            "official code's.",
            "| vocabulary | tokens | version | CPU s | peak MiB | time | memory |",
            compare(repeats),
            comparison_line,
        ),
        *shown(
            f"The fast version by thought length b: vocabulary {SHAPES[0][0]}, "
            f"{SHAPES[0][1]} tokens.",
            "| b | path tokens | CPU s | peak MiB | ms per path token | KiB per path token |",
            lengthen(repeats),
            length_line,
        ),
    ]


def run(options: argparse.Namespace) -> None:
    """The command."""
    if options.repeats < 1:
        raise UsageError("--repeats wants a whole number from 1 up")
    rows = benchmark(options.repeats)
    if options.json:
        content = json.dumps([asdict(row) for row in rows], indent=2) + "\n"
        options.json.write_text(content, encoding="utf-8")


def add_benchmark_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """`benchmark`: what a training step costs."""
    parser = commands.add_parser(
        "benchmark",
        help="time and memory of a training step",
        description="Measure a training step with thoughts, forward and backward, on one CPU "
        "thread: the version that trains by default, which computes the feed-forward parts again "
        "in the backward pass, the same keeping everything or computing whole layers again, and "
        "the dense reference, beside figures of the official code. Takes about ten minutes.",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="steps of each measurement, of which the fastest counts (default 3)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.set_defaults(run=run)
