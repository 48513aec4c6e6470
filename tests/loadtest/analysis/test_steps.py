"""The steps of a ramp, of records whose figures are known."""

from collections.abc import Sequence

import pytest

from loadtest.analysis.levels import parse_level
from loadtest.analysis.steps import held_sentence, steps_of
from loadtest.records import Cell, Failure, Record
from tests.support.loadtest.records import made_cell, made_record

RATES = (10, 20, 40)
LENGTH = 10.0


def ramp(
    latencies: Sequence[float] = (0.2, 0.2, 0.2), failing: float = 0.0, end: float = 30.0
) -> Cell:
    """Evenly spaced requests; those of a step take as long as each other, and a share of the last
    step's fail."""
    records: list[Record] = []
    for step, (rate, latency) in enumerate(zip(RATES, latencies, strict=True)):
        for n in range(int(rate * LENGTH)):
            due = step * LENGTH + n / rate
            fails = step == 2 and n < failing * rate * LENGTH
            failure = Failure.REFUSED if fails else None
            made = made_record(
                len(records), due, first=latency, per_token=0, tokens=2, failure=failure
            )
            records += [made] if due < end else []
    steps = [(float(rate), n * LENGTH, (n + 1) * LENGTH) for n, rate in enumerate(RATES)]
    return made_cell(records, (0.0, end), load="ramp:10-40@30s,steps=3").model_copy(
        update={"steps": steps}
    )


def sentence(cell: Cell, *levels: str) -> str | None:
    return held_sentence("0", [steps_of(cell, [parse_level(level) for level in levels])])


def test_every_step_has_its_own_requests_and_window() -> None:
    steps = steps_of(ramp(), [])
    assert [step.rate for step in steps] == list(RATES)
    for number, step in enumerate(steps):
        assert step.cell.window == (number * LENGTH, (number + 1) * LENGTH)
        due = [record for record in step.cell.records if not record.warmup]
        assert len(due) == RATES[number] * LENGTH
        assert step.broke is None
    assert sentence(ramp()) == "budget 0: held at every rate, up to 40 requests per second."
    assert steps_of(made_cell([], (0.0, 1.0)), []) == []


@pytest.mark.parametrize(
    ("cell", "levels", "text"),
    [
        # Answers of the last step come after it.
        (ramp((0.2, 0.2, 8.0)), (), "held at 20 requests per second, broke at 40 (the server fell"),
        (ramp(failing=0.05), (), "broke at 40 (5.0 % of the requests failed)"),
        (ramp(failing=0.005), (), "held at every rate"),
        (
            ramp((0.2, 0.9, 0.9)),
            ("p95 time_to_first_token<=500ms",),
            "held at 10 requests per second, broke at 20 (100.0 % of the requests missed p95 time_",
        ),
        (
            ramp((0.9, 0.9, 0.9)),
            ("p95 time_to_first_token<=500ms",),
            "no rate held; it broke at 10",
        ),
        # Too little of the last step to judge it.
        (ramp((0.2, 0.2, 8.0), end=24.0), (), "held at every rate, up to 20 requests per second"),
        (ramp((0.2, 0.2, 0.2), end=25.0), (), "held at every rate, up to 40 requests per second"),
    ],
)
def test_the_highest_rate_that_held_is_named(
    cell: Cell, levels: tuple[str, ...], text: str
) -> None:
    said = sentence(cell, *levels)
    assert said is not None
    assert text in said


def test_the_step_in_which_it_stopped_broke() -> None:
    stopped = ramp(end=22.0).model_copy(update={"stopped": "over-saturated"})
    assert sentence(stopped) == (
        "budget 0: held at 20 requests per second, broke at 40 (over-saturated)."
    )


def test_most_repeats_decide() -> None:
    good, bad = (steps_of(cell, []) for cell in (ramp(), ramp(failing=0.5)))
    text = held_sentence("0", [good, bad, good])
    assert text is not None
    assert "held at every rate" in text
    text = held_sentence("0", [good, bad, bad])
    assert text is not None
    assert "broke at 40" in text
