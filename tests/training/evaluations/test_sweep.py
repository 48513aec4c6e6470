"""The cells of a sweep."""

from training.evaluations.sweep import Cell, drawn_cell, sweep_cells


def test_budgets_are_crossed_with_thresholds() -> None:
    cells = sweep_cells((0, 2, 4), (0.0, 0.1))
    assert cells == (Cell(0), Cell(2), Cell(2, 0.1), Cell(4), Cell(4, 0.1))
    assert [cell.key for cell in cells] == ["0", "2", "2@0.1", "4", "4@0.1"]
    assert sweep_cells((0, 2), (0.5,)) == (Cell(0), Cell(2, 0.5))
    assert drawn_cell(cells) == Cell(4)


def test_a_threshold_decides_only_where_there_are_thoughts() -> None:
    assert Cell(2, 0.1).is_gated
    assert not Cell(2).is_gated
    assert not Cell(0, 0.1).is_gated
