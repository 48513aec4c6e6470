"""A cell over time: requests due, completed, failed and in flight."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.records import Cell

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """Rates per second in each bin, warm-up included; `edges` are the bounds of the bins.

    `in_flight` is the mean number of requests sent and not yet finished over each bin.
    """

    edges: Series
    due: Series
    completed: Series
    failed: Series
    in_flight: Series


def timeline(cell: Cell, bins: int) -> Timeline:
    """From the first request to the last answer."""
    ends = [record.finished for record in cell.records if record.finished is not None]
    dues = [record.scheduled for record in cell.records]
    start = min([0.0, *dues])
    edges = np.linspace(start, max([*ends, *dues, cell.window[1]]), bins + 1)
    width = edges[1] - edges[0]

    def rate(times: list[float]) -> Series:
        counts, _ = np.histogram(times, edges)
        return np.asarray(counts / width)

    failed = [record for record in cell.records if record.failure is not None]
    return Timeline(
        edges=edges,
        due=rate(dues),
        completed=rate(
            [r.finished for r in cell.records if r.failure is None and r.finished is not None]
        ),
        failed=rate([r.scheduled if r.finished is None else r.finished for r in failed]),
        in_flight=_in_flight(cell, edges),
    )


def _in_flight(cell: Cell, edges: Series) -> Series:
    """Exact means, from the time that requests have been in flight up to each edge."""
    spans = [
        (record.sent, record.finished)
        for record in cell.records
        if record.sent is not None and record.finished is not None
    ]
    sent, finished = np.array(spans, float).reshape(-1, 2).T
    up_to = [
        np.maximum(np.minimum(finished, edge) - np.minimum(sent, edge), 0).sum() for edge in edges
    ]
    return np.asarray(np.diff(up_to) / np.diff(edges))
