"""Whether and how many drafts pay: by what passes take, and how often drafts are right.

A draft costs what one more token adds to a pass, and saves a pass of its request if it is right. A
pass takes a + c·n for n tokens, of which a is shared by the rows of the batch: with R of them, a
draft that is right with probability q pays where q·(a/R + c) > c. Both are measured as the engine
runs.

Where every row of the batch thinks, the alternative is a multi-step, whose passes are cheaper:
which of the two gets more tokens thought in a second is measured, too, for each size of batch, and
the loser is tried again now and then. In a batch with requests that do not think, these would wait
for longer passes: there nothing is drafted.
"""

from typing import Literal

from quietstar_infer.vllm_plugin.schedule_plan import Drafting

# As if a pass had been measured before the first: what a token adds, as a share of the rest.
_PRIOR_SLOPE = 0.05
_FADE = 0.995
# More than a thought can have.
_MANY = 1 << 20
# Thought tokens after which the two ways are compared.
_WINDOW = 300
# After so many windows of the better way comes one of the other; at first, after few.
_AT_FIRST, _FIRST_INTERVAL, _LAST_INTERVAL = 2, 16, 128
# The share of a new window in what is remembered of either way: one alone may be noise.
_NEW = 0.5
# Up to so many rows drafts are expected to pay until it is measured.
_FEW_ROWS = 2

SpeculativeThoughts = Literal["auto"] | int
"""By measurement, or so many drafts in a pass wherever there are any; 0 = none."""


class PassCost:
    """What passes and their tokens take, fitted to what engine steps took lately."""

    def __init__(self) -> None:
        self._pp = self._pn = self._nn = self._pt = self._nt = 0.0

    def add(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        """Learn from an engine step of so many passes with so many tokens in all."""
        if not self._pp:
            per_pass = seconds / (num_passes + _PRIOR_SLOPE * num_tokens)
            for number in (1, 32):
                self._add(1, number, per_pass * (1 + _PRIOR_SLOPE * number))
        self._add(num_passes, num_tokens, seconds)

    def _add(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        self._pp = self._pp * _FADE + num_passes**2
        self._pn = self._pn * _FADE + num_passes * num_tokens
        self._nn = self._nn * _FADE + num_tokens**2
        self._pt = self._pt * _FADE + num_passes * seconds
        self._nt = self._nt * _FADE + num_tokens * seconds

    def least_chance(self, num_rows: int) -> float:
        """The probability of being right from which on a draft pays, with so many rows."""
        if not self._pp:
            return 0.0
        spread = max(self._pp * self._nn - self._pn**2, 1e-12)
        per_token = (self._pp * self._nt - self._pn * self._pt) / spread
        per_pass = (self._nn * self._pt - self._pn * self._nt) / spread
        if per_token <= 0:
            return 0.0
        return per_token / (per_token + max(per_pass, 0.0) / num_rows)


class _Rates:
    """Thought tokens per second with drafts and in multi-steps, of batches of about one size."""

    def __init__(self, *, is_drafting: bool) -> None:
        self.is_drafting = is_drafting
        self._rate: dict[bool, float] = {}
        self._tokens = self._seconds = 0.0
        self._interval, self._windows_left = _FIRST_INTERVAL // 2, _AT_FIRST

    def add(self, tokens: int, seconds: float, *, is_drafting: bool) -> None:
        if is_drafting != self.is_drafting:
            return  # another size of batch had been expected
        self._tokens += tokens
        self._seconds += seconds
        if self._tokens >= _WINDOW and self._seconds > 0:
            self._close_window()

    def _close_window(self) -> None:
        rate = self._tokens / self._seconds
        before = self._rate.get(self.is_drafting, rate)
        self._rate[self.is_drafting] = _NEW * rate + (1 - _NEW) * before
        self._tokens = self._seconds = 0.0
        self._windows_left -= 1
        if self._windows_left > 0:
            if len(self._rate) == 2:
                self.is_drafting = self._rate[True] > self._rate[False]
            return
        # Now the other way, for one window.
        self.is_drafting = not self.is_drafting
        self._interval = min(2 * self._interval, _LAST_INTERVAL)
        self._windows_left = self._interval + 1


class DraftPolicy:
    """Decides for the scheduler of one engine."""

    def __init__(self, mode: SpeculativeThoughts) -> None:
        self._mode = mode
        self._cost = PassCost()
        self._rates: dict[int, _Rates] = {}

    def drafting(self, num_rows: int, *, all_think: bool, goes_on: bool) -> Drafting | None:
        """How to draft in a batch of so many rows, None = not at all. `all_think`: each of them is
        in a thought or may begin one; `goes_on`: the alternative is a multi-step.
        """
        if self._mode == 0:
            return None
        if self._mode != "auto":
            return Drafting(self._mode, 0.0, goes_on)
        if not all_think or not self._rates_of(num_rows).is_drafting:
            return None
        return Drafting(_MANY, self._cost.least_chance(num_rows), goes_on)

    def observe_passes(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        """Learn what an engine step with drafts has taken."""
        self._cost.add(num_passes, num_tokens, seconds)

    def observe_thoughts(
        self, num_rows: int, tokens: int, seconds: float, *, is_drafting: bool
    ) -> None:
        """Learn how long an engine step has taken in which every row thought, for so many thought
        tokens in all.
        """
        self._rates_of(num_rows).add(tokens, seconds, is_drafting=is_drafting)

    def _rates_of(self, num_rows: int) -> _Rates:
        size = num_rows.bit_length()
        if size not in self._rates:
            self._rates[size] = _Rates(is_drafting=num_rows <= _FEW_ROWS)
        return self._rates[size]
