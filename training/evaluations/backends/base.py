"""Who computes log-probabilities and continuations: `LocalBackend` in this process, `HttpBackend`
through a server. Both give the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell
from training.evaluations.tasks.passages import Passage


class TokenScore(NamedTuple):
    """How a token was predicted: its log-probability (nats) in the whole vocabulary, and among the
    passage's allowed tokens where it is one of them; whether it was the likeliest.

    Mixing weight and thought where they are known; where the thought was expected to save too
    little there is neither, and its ids are empty. Its expected gain, in nats, where it is known.
    """

    logprob: float
    is_likeliest: bool
    among_allowed: float | None = None
    mixing_weight: float | None = None
    thought_ids: list[int] | None = None
    expected_gain: float | None = None


class ScoredPassage(NamedTuple):
    """A score per scored token of a passage, and what they cost."""

    scores: list[TokenScore]
    cost: Cost


PassageScores: TypeAlias = Mapping[Cell, ScoredPassage]
"""Of one passage, by cell of the sweep."""


class Continuation(NamedTuple):
    """The text that continues another, and what it cost."""

    text: str
    cost: Cost


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
        """The scored tokens of each passage in every cell of the sweep."""

    def continue_text(
        self, ids: Sequence[int], cell: Cell, sampling: Sampling
    ) -> list[Continuation]:
        """Continuations of a text, one for each seed; each token thought about as `cell` says."""

    def describe(self) -> dict[str, object]:
        """What computes the numbers, for the record."""
