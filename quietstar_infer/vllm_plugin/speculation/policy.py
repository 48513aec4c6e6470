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

# What a step, a pass and a token is expected to take, in passes, and steps that tell these apart,
# with their weight.
_EXPECTED = np.array([1.5, 1.0, 0.04])
_EXPECTED_STEPS = (
    np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 32.0], [1.0, 8.0, 8.0], [1.0, 8.0, 64.0]]) / 4
)
_FADE = 0.995
# More than a thought can have.
_MANY = 1 << 20
# Thought tokens after which the two ways are compared.
_WINDOW = 300
# After so many windows of the better way comes one of the other: twice as many each time. Few rows
# draft from the beginning, which tells little until there is something to draft from.
_FIRST_INTERVAL_OF_FEW, _FIRST_INTERVAL, _LAST_INTERVAL = 2, 16, 128
# The share of a new window in what is remembered of either way: one alone may be noise.
_NEW = 0.5
# Passes that a thought which has ended waits for others at most.
_MOST_PATIENCE = 8.0
# Up to so many rows drafts are expected to pay until it is measured.
_FEW_ROWS = 4

SpeculativeThoughts = Literal["auto"] | int
"""By measurement, or so many drafts in a pass wherever there are any; 0 = none."""


class PassCost:
    """What engine steps take, fitted to what they took lately: so much of their own, for each pass,
    and for each token.

    Steps that are all alike do not tell these apart. So some whose shares are expected ones are
    fitted with them, which weigh little against many that differ.
    """

    def __init__(self) -> None:
        self._products = np.zeros((3, 3))
        self._times = np.zeros(3)
        self._seconds = self._expected = 0.0

    def add(self, num_passes: int, num_tokens: int, seconds: float) -> None:
        """Learn from an engine step of so many passes with so many tokens in all."""
        step = np.array([1.0, num_passes, num_tokens])
        self._products = self._products * _FADE + np.outer(step, step)
        self._times = self._times * _FADE + step * seconds
        self._seconds = self._seconds * _FADE + seconds
        self._expected = self._expected * _FADE + float(step @ _EXPECTED)

    def fitted(self) -> tuple[float, float, float]:
        """Seconds of a step of its own, of a pass and of a token; nothing takes less than none."""
        if not self._expected:
            of_step, of_pass, of_token = _EXPECTED.tolist()
            return of_step, of_pass, of_token
        expected = _EXPECTED * (self._seconds / self._expected)
        products = self._products + _EXPECTED_STEPS.T @ _EXPECTED_STEPS
        times = self._times + _EXPECTED_STEPS.T @ (_EXPECTED_STEPS @ expected)
        of_step, of_pass, of_token = np.linalg.solve(products, times).clip(0).tolist()
        return of_step, of_pass, of_token


class _Rates:
    """Thought tokens per second with drafts and in multi-steps, of batches of about one size."""

    def __init__(self, *, is_drafting: bool, interval: int) -> None:
        """Begin with one way, and try the other after so many windows."""
        self.is_drafting = is_drafting
        self._rate: dict[bool, float] = {}
        self._tokens = self._seconds = 0.0
        self._interval = self._windows_left = interval
        self._is_trial = False

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
        if self._is_trial:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
            self._windows_left = self._interval
        else:
            self._windows_left -= 1
        if len(self._rate) == 2:
            self.is_drafting = self._rate[True] > self._rate[False]
        self._is_trial = self._windows_left == 0
        if self._is_trial:
            self.is_drafting = not self.is_drafting


class DraftPolicy:
    """Decides for the scheduler of one engine."""

    def __init__(self, mode: SpeculativeThoughts) -> None:
        self._mode = mode
        self._cost = PassCost()
        self._rates: dict[int, _Rates] = {}

    def is_drafting(self, num_rows: int) -> bool:
        """Whether a batch of so many rows, each of which thinks, drafts; else a multi-step."""
        if self._mode == "auto":
            return self._rates_of(num_rows).is_drafting
        return self._mode > 0

    def drafting(self, num_rows: int) -> Drafting | None:
        """How such a batch drafts, None = not at all."""
        if not self.is_drafting(num_rows):
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
            is_few = num_rows <= _FEW_ROWS
            interval = _FIRST_INTERVAL_OF_FEW if is_few else _FIRST_INTERVAL
            self._rates[size] = _Rates(is_drafting=is_few, interval=interval)
        return self._rates[size]
