"""What tokens cost."""

from training.evaluations.cost import Cost, thought_cost
from training.evaluations.sweep import Cell


def test_passes_are_the_servers() -> None:
    """START shares a pass where every token is thought about, and has one of its own where the
    base prediction decides about that."""
    assert Cost(5).passes(Cell(0)) == 5
    assert Cost(5, 5, 60).passes(Cell(12)) == 5 * 13
    assert Cost(5, 1, 12).passes(Cell(12, 0.1)) == 5 + 12 + 1
    assert Cost(5).passes(Cell(12, 0.1)) == 5


def test_costs_add_up() -> None:
    assert Cost(2, 1, 3) + Cost(4, 2, 6) == Cost(6, 3, 9)


def test_thoughts_are_counted_by_their_tokens() -> None:
    assert thought_cost(7, 24, Cell(12, 0.1)) == Cost(7, 2, 24)
    assert thought_cost(7, 0, Cell(0)) == Cost(7)
