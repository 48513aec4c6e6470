"""What tokens cost: thoughts, their tokens, and passes of the model."""

from dataclasses import dataclass
from typing import NamedTuple

from training.evaluations.sweep import Cell


@dataclass(frozen=True)
class Cost:
    """Of predicted or sampled visible `tokens`: how many of them were thought about, and the
    thought tokens for them, START and END not counted.
    """

    tokens: int
    thoughts: int = 0
    thought_tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.tokens + other.tokens,
            self.thoughts + other.thoughts,
            self.thought_tokens + other.thought_tokens,
        )

    def passes(self, cell: Cell) -> int:
        """Passes of the model, the prefill not counted, as the server runs them: one for each
        token and thought token. Where every token is thought about, START is fed together with the
        token before it; where the base prediction decides about that, in a pass of its own.
        """
        own = self.thoughts if cell.is_gated else 0
        return self.tokens + self.thought_tokens + own


def thought_cost(tokens: int, thought_tokens: int, cell: Cell) -> Cost:
    """The cost of tokens, from the thought tokens for them: every thought has `cell.budget`."""
    return Cost(tokens, thought_tokens // cell.budget if cell.budget else 0, thought_tokens)


class CostPoint(NamedTuple):
    """A cell of a sweep: its passes per token, and a measure beside them."""

    cell: Cell
    passes: float
    value: float
