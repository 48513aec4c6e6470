"""Whether and how many drafts pay: by what passes take, and how often drafts are right.

A draft costs what one more token adds to a pass, and saves a pass of its request if it is right. An
engine step takes s + a·p + c·n for p passes and n tokens. The a of a pass is shared by the rows of
the batch: with R of them, a draft that is right with probability q pays where q·(a/R + c) > c. A
thought that has ended waits for the others of the batch as long as that costs less than an engine
step more: s/a passes of the whole batch. All three are measured as the engine runs.

The alternative is a multi-step, whose passes are cheaper: which of the two gets more tokens thought
in a second is measured, too, for each size of batch, and the loser is tried again now and then. In
a batch with requests that do not think, these would wait for longer passes: there nothing is
drafted.
"""

from typing import Literal

import numpy as np

from quietstar_infer.vllm_plugin.schedule_plan import Drafting

# As if engine steps had been measured before the first: what one, a pass and a token takes, in
# passes; and steps that tell these apart.
_PRIOR = (1.0, 1.0, 0.05)
_PRIOR_STEPS = ((1, 1), (1, 32), (8, 8))
_FADE = 0.995
# More than a thought can have.
_MANY = 1 << 20
# Thought tokens after which the two ways are compared.
_WINDOW = 300
# After so many windows of the better way comes one of the other; at first, after few.
_AT_FIRST, _FIRST_INTERVAL, _LAST_INTERVAL = 2, 16, 128
# The share of a new window in what is remembered of either way: one alone may be noise.
_NEW = 0.5
# Passes that a thought which has ended waits for others at most.
_MOST_PATIENCE = 8.0
# Up to so many rows drafts are expected to pay until it is measured.
_FEW_ROWS = 2

SpeculativeThoughts = Literal["auto"] | int
"""By measurement, or so many drafts in a pass wherever there are any; 0 = none."""


class PassCost:
    """What engine steps take, fitted to what they took lately: so much of their own, for each pass,
    and for each token.
    """

    def __init__(self) -> None:
        self._products = np.zeros((3, 3))
        self._seconds = np.zeros(3)

    def add(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        """Learn from an engine step of so many passes with so many tokens in all."""
        if not self._seconds.any():
            of_step, of_pass, of_token = _PRIOR
            per_pass = seconds / (of_step + of_pass * num_passes + of_token * num_tokens)
            for passes, tokens in _PRIOR_STEPS:
                share = of_step + of_pass * passes + of_token * tokens
                self._add(passes, tokens, share * per_pass)
        self._add(num_passes, num_tokens, seconds)

    def _add(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        known = np.array([1.0, num_passes, num_tokens])
        self._products = self._products * _FADE + np.outer(known, known)
        self._seconds = self._seconds * _FADE + known * seconds

    def fitted(self) -> tuple[float, float, float]:
        """Seconds of a step of its own, of a pass and of a token; nothing takes less than none."""
        if not self._seconds.any():
            return _PRIOR
        of_step, of_pass, of_token = np.linalg.lstsq(self._products, self._seconds)[0].tolist()
        return max(of_step, 0.0), max(of_pass, 0.0), max(of_token, 0.0)


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

    def drafting(self, num_rows: int) -> Drafting | None:
        """How to draft in a batch of so many rows, each of which thinks; None = a multi-step."""
        if self._mode == 0 or (self._mode == "auto" and not self._rates_of(num_rows).is_drafting):
            return None
        of_step, of_pass, of_token = self._cost.fitted()
        patience = min(of_step / max(of_pass, 1e-9), _MOST_PATIENCE)
        if self._mode != "auto":
            return Drafting(self._mode, 0.0, patience)
        pays_from = of_token / max(of_token + of_pass / num_rows, 1e-9)
        return Drafting(_MANY, pays_from, patience)

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
