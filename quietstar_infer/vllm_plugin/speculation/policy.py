"""How many drafts pay: by what passes take, and how often drafts are right.

A draft costs what one more token adds to a pass, and saves a pass of its request if it is right. A
pass takes a + c·n for n tokens, of which a is shared by the rows of the batch: with R of them, a
draft that is right with probability q pays where q·(a/R + c) > c. Both are measured as the engine
runs.

Where every row of the batch thinks, the alternative is a multi-step, whose passes are cheaper:
which of the two gets more tokens thought in a second is measured, too, for each size of batch, and
the loser is tried again at ever longer intervals.
"""

from collections.abc import Sequence
from typing import Literal

# As if a pass had been measured before the first: what a token adds, as a share of the rest.
_PRIOR_SLOPE = 0.05
_FADE = 0.995
# Thought tokens after which the two ways are compared.
_WINDOW = 400
_FIRST_INTERVAL, _LAST_INTERVAL = 4, 64

SpeculativeThoughts = Literal["auto"] | int
"""By measurement, or so many drafts in a pass wherever there are any; 0 = none."""


class PassCost:
    """What a pass takes by the number of its tokens: a line, fitted to what was measured lately."""

    def __init__(self) -> None:
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        """Learn from a pass."""
        if not self._weight:
            self._add_prior(num_tokens, seconds)
        self._weight = self._weight * _FADE + 1
        self._n = self._n * _FADE + num_tokens
        self._t = self._t * _FADE + seconds
        self._nn = self._nn * _FADE + num_tokens**2
        self._nt = self._nt * _FADE + num_tokens * seconds

    def _add_prior(self, num_tokens: int, seconds: float) -> None:
        fixed = seconds / (1 + _PRIOR_SLOPE * num_tokens)
        for number in (1, 32):
            self._weight += 1
            self._n += number
            self._t += fixed * (1 + _PRIOR_SLOPE * number)
            self._nn += number**2
            self._nt += number * fixed * (1 + _PRIOR_SLOPE * number)

    def least_chance(self, num_rows: int) -> float:
        """The probability of being right from which on a draft pays."""
        if not self._weight:
            return 1.0
        spread = self._weight * self._nn - self._n**2
        slope = (self._weight * self._nt - self._n * self._t) / max(spread, 1e-12)
        fixed = (self._t - slope * self._n) / self._weight
        if slope <= 0:
            return 0.0
        return slope / (slope + max(fixed, 0.0) / num_rows)


class _Rates:
    """Thought tokens per second with drafts and in multi-steps, of batches of about one size."""

    def __init__(self) -> None:
        self._rate: dict[bool, float] = {}
        self._is_drafting = True
        self._tokens = self._seconds = 0.0
        self._interval = _FIRST_INTERVAL
        self._windows_left = 1

    @property
    def is_drafting(self) -> bool:
        return self._is_drafting

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens += tokens
        self._seconds += seconds
        if self._tokens >= _WINDOW and self._seconds > 0:
            self._close_window()

    def _close_window(self) -> None:
        self._rate[self._is_drafting] = self._tokens / self._seconds
        self._tokens = self._seconds = 0.0
        self._windows_left -= 1
        if len(self._rate) < 2:
            self._is_drafting = not self._is_drafting
            return
        better = self._rate[True] > self._rate[False]
        if self._windows_left > 0:
            self._is_drafting = better
        else:
            # Now the other way, for one window.
            self._is_drafting = not better
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
            self._windows_left = self._interval


class DraftPolicy:
    """Decides for the scheduler of one engine."""

    def __init__(self, mode: SpeculativeThoughts, *, has_multi_steps: bool) -> None:
        self._mode = mode
        self._has_multi_steps = has_multi_steps
        self._cost = PassCost()
        self._rates: dict[int, _Rates] = {}

    def is_drafting(self, num_rows: int, *, could_multi_step: bool) -> bool:
        """Whether to draft in a batch of so many rows."""
        if self._mode != "auto":
            return self._mode > 0
        if not (could_multi_step and self._has_multi_steps):
            return True
        return self._rates_of(num_rows).is_drafting

    def num_drafts(self, chances: Sequence[float], num_rows: int) -> int:
        """How many drafts to feed of those that are right with these probabilities, each with all
        before it.
        """
        if self._mode != "auto":
            return min(len(chances), self._mode)
        least = self._cost.least_chance(num_rows)
        return sum(chance > least for chance in chances)

    def observe_pass(self, num_tokens: int, seconds: float) -> None:
        """Learn what a pass of so many tokens has taken."""
        self._cost.add(num_tokens, seconds)

    def observe_thoughts(self, num_rows: int, tokens: int, seconds: float) -> None:
        """Learn how long an engine step has taken in which every row thought, for so many thought
        tokens in all.
        """
        self._rates_of(num_rows).add(tokens, seconds)

    def _rates_of(self, num_rows: int) -> _Rates:
        return self._rates.setdefault(num_rows.bit_length(), _Rates())
