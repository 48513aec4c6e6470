"""Who computes log-probabilities and continuations: `LocalBackend` in this process, `HttpBackend`
through a server. Both give the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from training.evaluations.tasks.passages import Passage


class TokenScore(NamedTuple):
    """How a token was predicted: its log-probability (nats) in the whole vocabulary, and among the
    passage's allowed tokens where it is one of them; whether it was the likeliest. Mixing weight
    and thought where there was one and it is known.
    """

    logprob: float
    is_likeliest: bool
    among_allowed: float | None = None
    mixing_weight: float | None = None
    thought_ids: list[int] | None = None


PassageScores: TypeAlias = Mapping[int, list[TokenScore]]
"""Of one passage: by budget, a score per scored token."""


@dataclass(frozen=True)
class Sampling:
    """How to continue a text. `seeds`: one per continuation; at `temperature` 0 all are equal. A
    continuation ends before a `stop` text.
    """

    max_tokens: int
    temperature: float
    seeds: tuple[int, ...]
    stop: tuple[str, ...] = ()


class Backend(Protocol):
    """Access to a model. Raises `UsageError` where it does not answer."""

    def score(
        self, passages: Sequence[Passage], *, with_thoughts: bool = False
    ) -> list[PassageScores]:
        """The scored tokens of each passage at every budget."""

    def continue_text(self, ids: Sequence[int], budget: int, sampling: Sampling) -> list[str]:
        """Continuations of a text, one for each seed; every token after a thought of `budget`."""

    def describe(self) -> dict[str, object]:
        """What computes the numbers, for the record."""
