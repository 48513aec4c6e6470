"""How much of the gain is kept by thinking at how many of the tokens; the choice of thresholds.

Of a score per position (the gate's expected gain, the entropy of the base prediction, or, as an
oracle, the label itself): positions whose score is above the threshold are thought about.

Shapes: N positions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.errors import UsageError

THRESHOLDS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Nats; the rows of the report."""
KEPT_BY_EFFORT: Mapping[str, float] = {"low": 0.8, "medium": 0.97, "high": 0.99}
"""The share of the gain that each effort's threshold keeps; the default threshold is medium's."""

PASSES_SLACK = 1.01
_SMALLEST_SCORE = 1e-30


@dataclass(frozen=True)
class Tradeoff:
    """At one threshold (nats): the shares of positions thought about and of the gain that is kept,
    passes per token, and the nats per token that are lost against thinking before every token.

    Passes are those of the engine: one per token, and budget + 1 for each thought; without a
    threshold START shares a pass with the token, so that it is budget + 1 in all.
    """

    threshold: float
    thinks: float
    keeps: float
    passes: float
    loses: float


@dataclass(frozen=True)
class Measured:
    """Of one budget, at each position, (N,): the label, and the next token's losses without and
    with the thought.
    """

    budget: int
    gain_N: Tensor
    base_nll_N: Tensor
    nll_N: Tensor


def tradeoff(score_N: Tensor, measured: Measured, threshold: float) -> Tradeoff:
    """At one threshold; 0 thinks before every token, whatever the score."""
    thinks_N = score_N > threshold if threshold > 0 else torch.ones_like(score_N, dtype=torch.bool)
    total = measured.gain_N.sum(dtype=torch.float64)
    kept = measured.gain_N[thinks_N].sum(dtype=torch.float64)
    share = float(thinks_N.double().mean())
    lost_N = torch.where(thinks_N, 0.0, measured.base_nll_N - measured.nll_N)
    return Tradeoff(
        threshold=threshold,
        thinks=share,
        keeps=float(kept / total) if total else 1.0,
        passes=1 + (share * (measured.budget + 1) if threshold > 0 else measured.budget),
        loses=float(lost_N.double().mean()),
    )


def tradeoffs(
    score_N: Tensor, measured: Measured, thresholds: Sequence[float] = THRESHOLDS
) -> list[Tradeoff]:
    """At each of the thresholds."""
    return [tradeoff(score_N, measured, threshold) for threshold in thresholds]


def threshold_keeping(score_N: Tensor, measured: Measured, share: float) -> float:
    """The threshold of the fewest passes that keep this share of the gain, in nats; to be exact, of
    at most `PASSES_SLACK` times as many: it lies in the widest gap between scores that is there,
    so that rounding decides about as few thoughts as can be.

    It is about the geometric mean of the lowest score that is thought about and the highest that
    is not, in two digits. Raises `UsageError` where there is no gain at all.
    """
    total = float(measured.gain_N.sum(dtype=torch.float64))
    if not total > 0:
        raise UsageError(
            "thoughts change no prediction of this model, so there is no gain to fit a gate to; "
            "teach it to think first (python -m training train)"
        )
    score_N, order_N = score_N.sort(descending=True)
    kept_N = measured.gain_N[order_N].cumsum(0, dtype=torch.float64) / total
    enough = min(int((kept_N < share - 1e-12).sum()), len(score_N) - 1)
    needed = int((score_N >= score_N[enough]).sum())  # equal scores are all above it, or none
    thought = measured.budget + 1
    passes = len(score_N) + needed * thought
    affordable = int((passes * PASSES_SLACK - len(score_N)) / thought)
    if affordable >= len(score_N):
        return _round_down(float(score_N[-1]))
    lowest, highest_skipped = _widest_gap(score_N[needed - 1 : affordable + 1])
    between = _round_down(math.sqrt(lowest * highest_skipped))
    return between if torch.tensor(between) >= highest_skipped else _round_down(lowest)


def _widest_gap(score_N: Tensor) -> tuple[float, float]:
    """The two neighbours of two or more scores, descending, whose ratio is the largest."""
    widest = int((score_N[:-1] / score_N[1:].clamp(min=_SMALLEST_SCORE)).argmax())
    return float(score_N[widest]), float(score_N[widest + 1])


def _round_down(value: float) -> float:
    """The largest number of two significant digits below a positive one, also in float32."""
    if value <= 0:
        return 0.0
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    below = (float(f"{(value // digit - n) * digit:.2g}") for n in range(3))
    return next(number for number in below if torch.tensor(number) < value)


@dataclass(frozen=True)
class CalibrationBin:
    """Positions of one range of expected gains: how many, and the means, in nats."""

    positions: int
    expected: float
    measured: float


def calibration(expected_N: Tensor, gain_N: Tensor) -> list[CalibrationBin]:
    """Mean expected and mean measured gains of the positions between neighbouring thresholds; empty
    ranges are left out.
    """
    bin_N = torch.bucketize(expected_N.contiguous(), torch.tensor(THRESHOLDS[1:]))
    return [
        calibration_of(expected_N[bin_N == number], gain_N[bin_N == number])
        for number in range(len(THRESHOLDS))
        if (bin_N == number).any()
    ]


def calibration_of(expected_N: Tensor, gain_N: Tensor) -> CalibrationBin:
    """All positions in one."""
    return CalibrationBin(len(gain_N), float(expected_N.mean()), float(gain_N.mean()))
