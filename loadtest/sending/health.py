"""Whether the client keeps up with what it has to send and to measure."""

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.records import ClientHealth

LATE_AFTER = 0.01
"""Seconds after which a send counts as late, if only the client itself delayed it."""
_TICK = 0.01

# Beyond these, figures may be the client's instead of the server's.
_LAG_LIMIT = 0.02
_CPU_LIMIT = 0.8
_LATE_LIMIT = 0.01


@dataclass(frozen=True)
class WorkerHealth:
    """The health of one worker in one cell."""

    lags: "array[float]"
    """Seconds by which the event loop woke late, sampled every 10 ms."""
    cpu_share: float
    late_sends: int


class HealthWatch:
    """Watches the running event loop and the CPU time of this process."""

    def __init__(self) -> None:
        self._lags = array("f")
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            self._lags.append(max(0.0, time.monotonic() - due))

    def result(self, late_sends: int) -> WorkerHealth:
        """Stop watching; what was seen."""
        self._task.cancel()
        wall = time.monotonic() - self._wall
        cpu_share = (time.process_time() - self._cpu) / wall if wall > 0 else 0.0
        return WorkerHealth(self._lags, cpu_share, late_sends)


def combine(workers: Sequence[WorkerHealth]) -> ClientHealth:
    """The health of all workers together."""
    lags = sorted(lag for worker in workers for lag in worker.lags) or [0.0]
    return ClientHealth(
        workers=len(workers),
        loop_lag_p99=lags[int(0.99 * (len(lags) - 1))],
        loop_lag_max=lags[-1],
        cpu_share_max=max(worker.cpu_share for worker in workers),
        late_sends=sum(worker.late_sends for worker in workers),
        late_after=LATE_AFTER,
    )


def complaints(health: ClientHealth, sent: int) -> list[str]:
    """Warnings about the client, in words."""
    found = []
    if health.cpu_share_max > _CPU_LIMIT:
        found.append(f"a worker used {health.cpu_share_max:.0%} of a CPU core")
    if health.loop_lag_p99 > _LAG_LIMIT:
        found.append(f"its event loop woke up to {health.loop_lag_p99 * 1000:.0f} ms late (p99)")
    if health.late_sends > max(1.0, _LATE_LIMIT * sent):  # one is a hiccup
        found.append(
            f"{health.late_sends} of {sent} requests were sent more than "
            f"{health.late_after * 1000:.0f} ms late"
        )
    if not found:
        return []
    return [
        f"the client is near its limit: {'; '.join(found)}. These figures may be the client's and "
        "not the server's: use more --workers, or a machine with free cores"
    ]
