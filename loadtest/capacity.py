"""How many requests the load tester itself can send, measured with `loadtest.testserver`.

Streams are short and the server answers at once, so that what is measured is the client's own cost.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from loadtest.errors import LoadTestError
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import Sender, prepare
from loadtest.testserver import Behaviour, running
from loadtest.traffic.arrivals import ClosedLoop
from loadtest.traffic.budgets import NO_BUDGET
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target

_CONCURRENCY = 32
"""Of each worker."""
_PROMPT = Constant(16)
_WARMUP = 0.5


@dataclass(frozen=True)
class Capacity:
    """The most that a number of workers could send."""

    workers: int
    requests_per_second: float
    cpu_share_max: float
    """Of the busiest worker. If it is well below 1, the server or the machine was the limit."""

    @property
    def per_cpu(self) -> float:
        """Requests per second that a worker with a core of its own could send."""
        return self.requests_per_second / self.workers / self.cpu_share_max


def measure_capacity(
    workers: Sequence[int] = (1, 2), seconds: float = 5.0, tokens: int = 8
) -> Iterator[Capacity]:
    """Send as many requests as possible to a test server with each number of workers; each is
    answered with a stream of `tokens` tokens."""
    with running(Behaviour(max_thought_budget=None)) as url:
        plan = Plan(
            target=Target(url),
            loads=(),
            budgets=(NO_BUDGET,),
            prompts=PromptPlan(input_lengths=_PROMPT, output_lengths=Constant(tokens)),
            extent=Extent(seconds=seconds, warmup=_WARMUP),
        )
        for number in workers:
            yield _measure(replace(plan, workers=number))


def capacity_command(arguments: Sequence[str]) -> int:
    """`python -m loadtest capacity`."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest capacity",
        description="How many requests per second this machine can send: short streams against a "
        "trivial server that it starts itself, with 1 and with 2 worker processes.",
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="numbers to try (default: 1 2)"
    )
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of each (default: 5)")
    parser.add_argument("--tokens", type=int, default=8, help="of each stream (default: 8)")
    options = parser.parse_args(arguments)
    if min(options.workers) < 1 or options.tokens < 1:
        raise LoadTestError("there is nothing to measure without a worker and a token")
    measured = measure_capacity(options.workers, options.duration, options.tokens)
    print(capacity_table(list(measured), os.cpu_count() or 1))
    return 0


def _measure(plan: Plan) -> Capacity:
    with Sender(prepare(plan), NoWatcher()) as sender:
        cell = sender.run(NO_BUDGET, ClosedLoop(_CONCURRENCY * plan.workers))
    start, end = cell.window
    assert cell.client is not None
    done = sum(not record.warmup and record.failure is None for record in cell.records)
    return Capacity(plan.workers, done / (end - start), cell.client.cpu_share_max)


def capacity_table(measured: Sequence[Capacity], cores: int) -> str:
    """The measurements as a table, and what more workers brought on this machine."""
    lines = ["workers  requests/s  busiest worker's CPU  requests/s per CPU of a worker"]
    lines += [
        f"{one.workers:7}  {one.requests_per_second:10.0f}  {one.cpu_share_max:20.0%}  "
        f"{one.per_cpu:30.0f}"
        for one in measured
    ]
    return "\n".join([*lines, *_scaling(measured, cores)])


def _scaling(measured: Sequence[Capacity], cores: int) -> Iterator[str]:
    """What more workers bring. The main process and the server need a core each, too."""
    least = min(measured, key=lambda one: one.workers)
    for one in measured:
        if one is least:
            continue
        pair = f"{one.workers} workers against {least.workers}"
        if one.workers + 2 <= cores:
            yield f"{pair}: {one.requests_per_second / least.requests_per_second:.2f} times"
        else:
            with_cores = one.workers * one.per_cpu / (least.workers * least.per_cpu)
            yield (
                f"{pair}: {with_cores:.2f} times by the CPU time that a request takes, with a core "
                f"for each; this machine has {cores} for workers, main process and server together"
            )
