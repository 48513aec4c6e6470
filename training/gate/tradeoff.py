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
KEPT_BY_EFFORT: Mapping[str, float] = {"low": 0.8, "medium": 0.95, "high": 0.99}
"""The share of the gain that each effort's threshold keeps; the default threshold is medium's."""


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


def threshold_keeping(score_N: Tensor, gain_N: Tensor, share: float) -> float:
    """The threshold of the fewest passes that keep this share of the gain, in nats.

    That is the largest such threshold; it is rounded down to two digits, which can only keep more.
    Raises `UsageError` where there is no gain at all.
    """
    total = float(gain_N.sum(dtype=torch.float64))
    if not total > 0:
        raise UsageError(
            "thoughts change no prediction of this model, so there is no gain to fit a gate to; "
            "teach it to think first (python -m training train)"
        )
    score_N, order_N = score_N.sort(descending=True)
    kept_N = gain_N[order_N].cumsum(0, dtype=torch.float64) / total
    last = int((kept_N < share - 1e-12).sum())
    smallest = float(score_N[min(last, len(score_N) - 1)])
    return _round_down(smallest)


def _round_down(value: float) -> float:
    """The largest number of two significant digits below a positive number."""
    if value <= 0:
        return 0.0
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded = float(f"{(math.ceil(value / digit) - 1) * digit:.2g}")
    return rounded if rounded < value else float(f"{rounded - digit:.2g}")


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
    bin_N = torch.bucketize(expected_N, torch.tensor(THRESHOLDS[1:]))
    return [
        calibration_of(expected_N[bin_N == number], gain_N[bin_N == number])
        for number in range(len(THRESHOLDS))
        if (bin_N == number).any()
    ]


def calibration_of(expected_N: Tensor, gain_N: Tensor) -> CalibrationBin:
    """All positions in one."""
    return CalibrationBin(len(gain_N), float(expected_N.mean()), float(gain_N.mean()))
