"""Rows of repeats, of which some may have no answer."""

import pytest

from loadtest.analysis.summary import Summary, summarise
from loadtest.records import Cell, Failure
from loadtest.reporting.report import headline, render
from tests.support.loadtest.records import made_cell, made_record, made_run
from tests.support.loadtest.tables import tables_of

RIGHT = {0: 0.2, 4: 0.5, 8: 0.9}
REPEATS = 3


def cell(budget: int, repeat: int, failing: bool = False, partial: bool = False) -> Cell:
    records = [
        made_record(
            n,
            n / 10,
            budget,
            per_token=0.01 * (budget + 1),
            correct=None if failing else n < RIGHT[budget] * 100,
            failure=Failure.TIMEOUT if failing else None,
        )
        for n in range(100)
    ]
    made = made_cell(records, (0.0, 10.0), {str(budget): 1.0}, repeat=repeat)
    return made.model_copy(update={"partial": partial})


def summary_with(finished: int) -> Summary:
    """Budgets 0 and 4 in three repeats, and 8, of whose repeats only some have an answer."""
    cells = [cell(budget, repeat) for budget in (0, 4) for repeat in range(REPEATS)]
    cells += [cell(8, repeat, failing=repeat >= finished) for repeat in range(REPEATS)]
    return summarise(made_run(cells))


@pytest.mark.parametrize("finished", [1, 2])
def test_a_budget_that_finished_in_some_repeats_is_shown_named_and_in_no_headline(
    finished: int,
) -> None:
    summary = summary_with(finished)
    (load,) = summary.loads
    (last,) = (row for row in load.rows if row.budget == "8")
    time = last.figure("mean time_per_visible_token")
    assert time is not None
    assert time.mean == pytest.approx(0.09)
    assert (len(time.values), time.missing) == (finished, REPEATS - finished)
    assert f"90 ms ({finished} of 3)" in tables_of(load)[0][2]
    why = f"requests succeeded in {finished} of 3 repeats only; no headline uses what they show"
    assert f"budget 8, constant:10: {why}" in summary.warnings
    tiles = " ".join(" ".join(tile) for tile in headline(summary))
    assert "50.0%" in tiles
    assert "90.0%" not in tiles
    for front in load.fronts:
        assert front.most_accurate.setting.budget == "4"
        assert "Left out, because repeats are missing: b = 8." in front.sentence
    assert load.price is not None
    assert [setting.budget for setting in load.price.points] == ["0", "4"]
    assert f"({finished} of 3)" in render(summary)


def test_a_budget_that_finished_in_all_is_in_the_headlines() -> None:
    summary = summary_with(REPEATS)
    assert summary.warnings == ()
    assert summary.loads[0].fronts[0].most_accurate.setting.budget == "8"


def test_a_repeat_that_was_cut_short_does_not_take_the_others_from_the_headlines() -> None:
    cells = [cell(budget, repeat) for repeat in range(2) for budget in (0, 4)]
    summary = summarise(made_run([*cells, cell(0, 2, partial=True)]))
    assert [row.left_out for row in summary.rows] == [None, None]
    alone = summarise(made_run([*cells, cell(8, 0, partial=True)]))
    assert [row.left_out for row in alone.rows] == [
        *(None, None, "no repeat was measured to its end")
    ]
