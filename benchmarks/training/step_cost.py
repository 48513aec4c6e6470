"""The cost of a training step, beside the reference step and the official code.

Every measurement runs in a fresh process on one thread, so that its peak memory is its own. This
module imports no torch: the peak memory of a process begins with its parent's.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

STEP_SHAPES = ((2002, 256), (32002, 128))
"""Vocabulary and tokens, as the official code was measured."""
OFFICIAL_COSTS = {(2002, 256): (9.29, 1541.0), (32002, 128): (14.73, 2436.0)}
"""CPU seconds and MiB of the official code (ezelikman/quiet-star at 892446b, unmodified, SDPA) for
one forward and backward of the same model on one thread: fp32, n_ahead 12, n_ahead_talk 4, n_passes
2, batch 1. Quoted from an earlier measurement: the code needs transformers 4.37."""
_OFFICIAL_BUDGET = 9
STEP_VERSIONS = ("fast", "keeping all", "recomputing layers", "dense")
STEP_BUDGETS = (4, 8, 16, 32)


@dataclass(frozen=True)
class StepCost:
    """One measurement: the least CPU seconds of the repeats, the growth of peak memory in MiB."""

    version: str
    vocab_size: int
    positions: int
    budget: int
    cpu_seconds: float
    peak_mib: float


def measure_cost(
    version: str, vocab_size: int, positions: int, budget: int, repeats: int
) -> StepCost:
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
    return StepCost(version, vocab_size, positions, budget, **json.loads(done.stdout))


def _compared(repeats: int) -> Iterator[StepCost]:
    """The official code's figures, and all our versions in the same shapes."""
    for vocab_size, positions in STEP_SHAPES:
        quoted = OFFICIAL_COSTS[vocab_size, positions]
        yield StepCost("official (quoted)", vocab_size, positions, _OFFICIAL_BUDGET, *quoted)
        for version in STEP_VERSIONS:
            yield measure_cost(version, vocab_size, positions, _OFFICIAL_BUDGET, repeats)


def _by_length(repeats: int) -> Iterator[StepCost]:
    """The training step by thought length."""
    for budget in STEP_BUDGETS:
        yield measure_cost("fast", *STEP_SHAPES[0], budget, repeats)


def comparison_line(row: StepCost) -> str:
    """A line of the first table."""
    seconds, mib = OFFICIAL_COSTS[row.vocab_size, row.positions]
    return (
        f"| {row.vocab_size} | {row.positions} | {row.version} | {row.cpu_seconds:.2f} "
        f"| {row.peak_mib:.0f} | {row.cpu_seconds / seconds:.2f} | {row.peak_mib / mib:.2f} |"
    )


def length_line(row: StepCost) -> str:
    """A line of the second table: 2 paths per position of b + START + END + 3 true tokens."""
    tokens = row.positions * 2 * (row.budget + 5)
    return (
        f"| {row.budget} | {tokens} | {row.cpu_seconds:.2f} | {row.peak_mib:.0f} "
        f"| {1e3 * row.cpu_seconds / tokens:.2f} | {1024 * row.peak_mib / tokens:.0f} |"
    )


def _printed(
    title: str, header: str, costs: Iterable[StepCost], line: Callable[[StepCost], str]
) -> Iterator[StepCost]:
    """Print a Markdown table while its rows are measured; yields the measurements."""
    print(f"{title}\n\n{header}\n|{'---|' * (header.count('|') - 1)}", flush=True)
    for cost in costs:
        print(line(cost), flush=True)
        yield cost
    print()


def report_step_costs(repeats: int, figures: Path | None) -> None:
    """Measure and print everything; the figures also as JSON, if a file is given."""
    costs = [
        *_printed(
            "One training step, forward and backward: 9 thought tokens, 4 tokens ahead, 2\n"
            "thoughts per position, batch 1, fp32, one thread. Time and memory as shares of the\n"
            "official code's.",
            "| vocabulary | tokens | version | CPU s | peak MiB | time | memory |",
            _compared(repeats),
            comparison_line,
        ),
        *_printed(
            f"The fast version by thought length b: vocabulary {STEP_SHAPES[0][0]}, "
            f"{STEP_SHAPES[0][1]} tokens.",
            "| b | path tokens | CPU s | peak MiB | ms per path token | KiB per path token |",
            _by_length(repeats),
            length_line,
        ),
    ]
    if figures:
        content = json.dumps([asdict(cost) for cost in costs], indent=2) + "\n"
        figures.write_text(content, encoding="utf-8")
