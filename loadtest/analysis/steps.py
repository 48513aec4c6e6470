"""The steps of a ramp as cells of their own, and the highest rate that held.

A step holds if the server kept up with the requests that were due in its second half (in its first
one it still answers those of the step before), at most 1 % of its requests failed, and every
service level held as measured. Steps should last several times as long as an answer. The number of
unanswered requests of a server that keeps up is Poisson-distributed around rate times latency
(Little), so it may rise by three standard deviations of the difference of two such numbers; the
latency is the median of the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.analysis.figures import CUT_SHORT, measured
from loadtest.analysis.levels import Level, verdicts
from loadtest.analysis.units import show, three_digits
from loadtest.records import Cell, Record

KEPT_UP = 0.9
"""The share of requests due that a server must complete to keep up."""
MAY_FAIL = 0.01
"""The share of a step's requests that may fail."""


@dataclass(frozen=True)
class Step:
    """One step of a ramp in one repeat. In its cell the records of other steps are marked as
    warm-up: they count for throughput only."""

    rate: float
    """Requests per second."""
    cell: Cell
    broke: str | None
    """Why it did not hold, in words; None = it did."""


def steps_of(cell: Cell, levels: Sequence[Level]) -> list[Step]:
    """The steps of a ramp that were measured for half their time or more, and the one in which it
    stopped; none of another load."""
    end = cell.window[1]
    found: list[Step] = []
    latency = 0.0
    for rate, start, planned in cell.steps:
        if start >= end:
            break
        part = _part(cell, (start, min(planned, end)))
        latency = latency or _median_latency(part)
        stopped = cell.stopped if end < planned else None
        if stopped is None and end < (start + planned) / 2:
            break  # the run ended before it could be judged
        found.append(Step(rate, part, stopped or why_it_broke(part, levels, rate * latency)))
    return found


def _part(cell: Cell, window: tuple[float, float]) -> Cell:
    def in_part(record: Record) -> Record:
        inside = not record.warmup and window[0] <= record.scheduled < window[1]
        return record if inside or record.warmup else record.model_copy(update={"warmup": True})

    return cell.model_copy(
        update={"window": window, "records": [in_part(record) for record in cell.records]}
    )


def _median_latency(cell: Cell) -> float:
    ended = [record.end_to_end for record in measured(cell.records) if record.failure is None]
    return median(ended) if ended else 0.0


def why_it_broke(cell: Cell, levels: Sequence[Level], in_flight: float) -> str | None:
    """Why a rate did not hold, from one cell and the requests in flight that it should have; None =
    it did."""
    due = [record for record in measured(cell.records) if record.failure not in CUT_SHORT]
    failed = sum(record.failure is not None for record in due)
    if failed > MAY_FAIL * len(due):
        return f"{show(failed / len(due), 'share')} of the requests failed"
    asked, answered = _second_half(cell)
    if asked - answered > max((1 - KEPT_UP) * asked, 3 * (2 * in_flight) ** 0.5):
        return f"the server fell behind: {answered} answers for {asked} requests in its second half"
    for verdict in verdicts(levels, [due]):
        if not verdict.holds_as_measured:
            missed = show(verdict.misses / verdict.requests, "share")
            return f"{missed} of the requests missed {verdict.level.text}"
    return None


def _second_half(cell: Cell) -> tuple[int, int]:
    """Requests due and answers completed there."""
    middle, end = sum(cell.window) / 2, cell.window[1]
    due = sum(middle <= record.scheduled < end for record in cell.records)
    done = sum(
        record.failure is None and middle <= (record.finished or 0.0) < end
        for record in cell.records
    )
    return due, done


def keeps_up(due: int, completed: float) -> bool:
    """Whether about as many answers were completed as were due, within three standard errors."""
    return completed >= KEPT_UP * due or completed >= due - 3 * due**0.5


def held_sentence(name: str, repeats: Sequence[Sequence[Step]]) -> str | None:
    """The highest rate up to which all steps held, in most repeats, and why the next one broke;
    None where there are no steps."""
    by_rate: dict[float, list[Step]] = {}
    for step in (step for steps in repeats for step in steps):
        by_rate.setdefault(step.rate, []).append(step)
    highest = None
    for rate, steps in by_rate.items():
        broken = [step.broke for step in steps if step.broke]
        if 2 * len(broken) >= len(steps):
            text = f"broke at {three_digits(rate)} ({broken[0]})"
            if highest is None:
                return f"budget {name}: no rate held; it {text}."
            return f"budget {name}: held at {three_digits(highest)} requests per second, {text}."
        highest = rate
    if highest is None:
        return None
    return f"budget {name}: held at every rate, up to {three_digits(highest)} requests per second."
