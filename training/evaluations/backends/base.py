"""Who finds log-probabilities and says answers: `ThinkerRoute` in this process, `ServedRoute` over
HTTP. Both give the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from training.evaluations.tasks.passages import Passage


class TokenScore(NamedTuple):
    """How a token was predicted: its log-probability (nats) in the whole vocabulary, and among the
    passage's allowed tokens where it is one of them; whether it was the likeliest. Weight and
    thought where there was one and it is known.
    """

    logprob: float
    is_likeliest: bool
    among_allowed: float | None = None
    mixing_weight: float | None = None
    thought_ids: list[int] | None = None


Scores: TypeAlias = Mapping[int, list[TokenScore]]
"""Of a passage, by budget and wanted token."""


@dataclass(frozen=True)
class Sampling:
    """How to go on with a text. `seeds`: one per continuation; at `temperature` 0 all are alike.
    A continuation ends before a `stop` text.
    """

    max_tokens: int
    temperature: float
    seeds: tuple[int, ...]
    stop: tuple[str, ...] = ()


class Route(Protocol):
    """The model, by whatever way it is reached. Raises `UsageError` where it does not answer."""

    def score(self, passages: Sequence[Passage], *, with_thoughts: bool = False) -> list[Scores]:
        """The wanted tokens of each passage at every budget."""

    def continue_text(self, ids: Sequence[int], budget: int, sampling: Sampling) -> list[str]:
        """Continuations of a text, one for each seed; every token after a thought of `budget`."""

    def describe(self) -> dict[str, object]:
        """What is asked, for the record."""
