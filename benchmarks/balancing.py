"""Which server gets a request: a simulation of two servers, `python -m benchmarks.balancing`.

An engine step takes a request in the batch one pass further; what does not fit in the batch waits.
A balancer sees each server's load as of its last look, a second ago at most, and adds what it has
sent there since. Compared are loads counted in requests, and in passes still to do.
"""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Literal, NamedTuple, TypeAlias

Unit: TypeAlias = Literal["requests", "passes"]

ROWS = 16
STEPS_PER_SECOND = 50
STEPS_BETWEEN_LOOKS = STEPS_PER_SECOND
BUDGET, SHARE_THINKING = 16, 0.2


class Job(NamedTuple):
    """A request: the step in which it arrives, the passes that it takes, and those that it would
    take with all of its max_tokens, which is all that is known of them before."""

    arrival: int
    passes: int
    expected: int


@dataclass
class Row:
    """A request on a server, and the passes it has had."""

    job: Job
    done: int = 0


@dataclass
class SimulatedServer:
    """A batch, and a queue before it."""

    batch: list[Row] = field(default_factory=list)
    queue: deque[Row] = field(default_factory=deque)

    def load(self, unit: Unit) -> int:
        rows = [*self.batch, *self.queue]
        return len(rows) if unit == "requests" else sum(it.job.expected - it.done for it in rows)

    def step(self) -> list[Job]:
        """Run an engine step; returns the requests that it has finished."""
        while self.queue and len(self.batch) < ROWS:
            self.batch.append(self.queue.popleft())
        for row in self.batch:
            row.done += 1
        finished = [row.job for row in self.batch if row.done == row.job.passes]
        self.batch = [row for row in self.batch if row.done < row.job.passes]
        return finished


def jobs(number: int, per_second: float, seed: int) -> list[Job]:
    """Requests that arrive at random, a fifth of them thinking."""
    draw = random.Random(seed)
    made, second = [], 0.0
    for _ in range(number):
        second += draw.expovariate(per_second)
        budget = BUDGET if draw.random() < SHARE_THINKING else 0
        most = draw.choice([64, 128, 256])
        tokens = max(1, round(most * draw.uniform(0.3, 1)))
        arrival = round(second * STEPS_PER_SECOND)
        made.append(Job(arrival, tokens * (budget + 1), most * (budget + 1)))
    return made


def latencies(arriving: Sequence[Job], unit: Unit, num_servers: int = 2) -> Iterator[float]:
    """Seconds from the arrival to the end of each request, in the order of their ends."""
    servers = [SimulatedServer() for _ in range(num_servers)]
    waiting = deque(arriving)
    seen, sent = [0] * num_servers, [0] * num_servers
    step, left = 0, len(arriving)
    while left:
        if step % STEPS_BETWEEN_LOOKS == 0:
            seen, sent = [server.load(unit) for server in servers], [0] * num_servers
        while waiting and waiting[0].arrival <= step:
            job = waiting.popleft()
            # Where two are equal, in turn.
            chosen = min(range(num_servers), key=lambda it: (seen[it] + sent[it], it != left % 2))
            sent[chosen] += 1 if unit == "requests" else job.expected
            servers[chosen].queue.append(Row(job))
        step += 1
        for server in servers:
            for job in server.step():
                left -= 1
                yield (step - job.arrival) / STEPS_PER_SECOND


def main(number: int = 4000, seeds: int = 5) -> None:
    """Print mean latencies by load."""
    capacity = 2 * ROWS * STEPS_PER_SECOND
    passes = mean(job.passes for job in jobs(50_000, 1, seed=0))
    for load in (0.8, 0.9, 0.97, 1.07):
        rate = load * capacity / passes
        for unit in ("requests", "passes"):
            means = [mean(latencies(jobs(number, rate, seed), unit)) for seed in range(seeds)]
            print(f"load {load:.2f}, counted in {unit}: {mean(means):.1f} s")


if __name__ == "__main__":
    main()
