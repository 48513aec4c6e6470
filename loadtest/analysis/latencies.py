"""The latencies of a request, by their names in reports, service levels and tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtest.records import Record


@dataclass(frozen=True)
class Latency:
    """One latency of a request in seconds; `of` gives its values, which may be none."""

    name: str
    title: str
    meaning: str
    of: Callable[[Record], Sequence[float]]

    @property
    def per_request(self) -> bool:
        """Whether a request has one value at most."""
        return self.name != "inter_token_gap"


def _if_any(read: Callable[[Record], float | None]) -> Callable[[Record], Sequence[float]]:
    """The values of a latency that a request has once or never."""

    def of(record: Record) -> Sequence[float]:
        value = read(record)
        return () if value is None else (value,)

    return of


def _gaps(record: Record) -> Sequence[float]:
    return [later - earlier for earlier, later in pairwise(record.token_times)]


_ALL = (
    Latency(
        "time_to_first_token",
        "time to first token",
        "from the moment the request was due to its first visible token",
        _if_any(lambda record: record.time_to_first_token),
    ),
    Latency(
        "time_to_first_reasoning_token",
        "time to first reasoning token",
        "from the moment the request was due to its first reasoning token, where they are streamed",
        _if_any(lambda record: record.time_to_first_reasoning_token),
    ),
    Latency(
        "thinking_time",
        "thinking time",
        "from the first reasoning token to the first visible one, or to the end of an answer that "
        "was cut before",
        _if_any(lambda record: record.thinking_time),
    ),
    Latency(
        "time_per_reasoning_token",
        "time per reasoning token",
        "mean over a request's reasoning tokens after the first",
        _if_any(lambda record: record.time_per_reasoning_token),
    ),
    Latency(
        "time_per_visible_token",
        "time per visible token",
        "mean over a request's visible tokens after the first, thoughts included",
        _if_any(lambda record: record.time_per_visible_token),
    ),
    Latency(
        "inter_token_gap",
        "gap between tokens",
        "between neighbouring visible tokens; tokens of one chunk have gaps of zero",
        _gaps,
    ),
    Latency(
        "end_to_end",
        "end to end",
        "from the moment the request was due to its last byte",
        lambda record: (record.end_to_end,),
    ),
    Latency(
        "client_queueing",
        "queueing at the client",
        "between due and sent; part of time to first token and end to end",
        lambda record: (record.queued,),
    ),
)
LATENCIES = {latency.name: latency for latency in _ALL}
