"""What thoughts have said so far: after which tokens, which were likely.

For the last 6, 4, 3, 2 and 1 tokens of a thought, and for its length alone, the table keeps the
likeliest tokens that followed when these came last, and their logits. A draft is chosen from the
entry of the longest context that there is, with the noise of the place that it is for: where the
logits are the same as then, it is the token that the thought itself will choose.

A table of fixed size without chains: what falls on a taken place replaces what is there. It is all
requests' together, because a short answer has no earlier thoughts. Compiled (numba), because a
draft has to take microseconds.

Shapes: S entries of the table, K candidates, R rows, C columns of a slot, U learnt tokens, D
drafts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit  # type: ignore[import-untyped]
from vllm.triton_utils import dispatcher

from quietstar_infer.sampling import GOLDEN_RATIO, MULTIPLIERS, SALTS
from quietstar_infer.vllm_plugin.thought_rows import Int64Array

NUM_CANDIDATES = 16
# Lengths of contexts, longest first. The last, 0, is the length of the thought so far alone.
ORDERS = np.array([6, 4, 3, 2, 1, 0])
_SIZE = 1 << 15
_MASK = 0xFFFFFFFF
_FIRST_SALT, _SECOND_SALT = SALTS
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = MULTIPLIERS

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


def _attributes(value: Any) -> Mapping[str, Any]:
    """`vars`, of what really has attributes of its own."""
    try:
        attributes: Mapping[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes


# When vLLM starts a worker on a CPU, it looks at everything in every module. One object of
# llvmlite's, which comes with numba, claims to have a `__dict__` that is none, and vLLM fails. Can
# go when it leaves such objects alone.
dispatcher.vars = _attributes  # type: ignore[attr-defined]


class DraftRequests(NamedTuple):
    """What drafts depend on, of R thoughts.

    `known_R`: how many tokens of each are known, in its row of the tokens from column 1 on.
    `budget_R`: how many it will have. `seed_R`, `position_R` and `temperature_R`: of its noise.
    """

    known_R: Int64Array
    budget_R: Int64Array
    seed_R: Int64Array
    position_R: Int64Array
    temperature_R: Float32Array


class ThoughtNgrams:
    """The table."""

    def __init__(self) -> None:
        self._key_S = np.zeros(_SIZE, dtype=np.uint64)
        self._token_SK = np.zeros((_SIZE, NUM_CANDIDATES), dtype=np.int32)
        self._logit_SK = np.zeros((_SIZE, NUM_CANDIDATES), dtype=np.float32)

    def learn(
        self,
        token_RC: Int32Array,
        row_U: Int64Array,
        known_U: Int64Array,
        candidate_UK: Int64Array,
        logit_UK: Float32Array,
    ) -> None:
        """Keep what could follow the first `known_U` tokens of thoughts, each in its row of
        `token_RC` from column 1 on: the likeliest tokens, and their logits.
        """
        _learn(
            self._key_S,
            self._token_SK,
            self._logit_SK,
            token_RC,
            row_U,
            known_U,
            candidate_UK,
            logit_UK,
        )

    def draft(
        self, token_RC: Int32Array, requests: DraftRequests
    ) -> tuple[Int32Array, Int64Array, Int64Array]:
        """Draft the rest of thoughts: tokens (R, D), the place in `ORDERS` of the context that each
        comes from, (R, D), and how many there are, (R,).
        """
        return _draft(self._key_S, self._token_SK, self._logit_SK, token_RC, *requests)  # type: ignore[no-any-return]


@njit(cache=True)
def _context_key(token_C, known, order):  # type: ignore[no-untyped-def]
    """A hash, never 0, of the last `order` of the first `known` tokens from column 1 on."""
    key = np.uint64(0x9E3779B97F4A7C15) * np.uint64(order + 1)
    if order == 0:
        key ^= np.uint64(known + 1)
        key *= np.uint64(0xBF58476D1CE4E5B9)
    for column in range(known - order + 1, known + 1):
        key ^= np.uint64(token_C[column] + 1)
        key *= np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(29)
    return key | np.uint64(1)


@njit(cache=True)
def _place(key, size):  # type: ignore[no-untyped-def]
    return np.int64((key >> np.uint64(20)) % np.uint64(size))


@njit(cache=True)
def _learn(key_S, token_SK, logit_SK, token_RC, row_U, known_U, candidate_UK, logit_UK):  # type: ignore[no-untyped-def]
    for index in range(len(row_U)):
        known = known_U[index]
        for order in ORDERS:
            if order > known:
                continue
            key = _context_key(token_RC[row_U[index]], known, order)
            place = _place(key, len(key_S))
            key_S[place] = key
            token_SK[place] = candidate_UK[index]
            logit_SK[place] = logit_UK[index]


@njit(cache=True)
def _draft(  # type: ignore[no-untyped-def]
    key_S, token_SK, logit_SK, token_RC, known_R, budget_R, seed_R, position_R, temperature_R
):
    rows, columns = token_RC.shape
    token_RD = np.zeros((rows, columns), dtype=np.int32)
    order_RD = np.zeros((rows, columns), dtype=np.int64)
    number_R = np.zeros(rows, dtype=np.int64)
    token_C = np.zeros(columns, dtype=np.int32)
    for row in range(rows):
        token_C[:] = token_RC[row]
        for known in range(known_R[row], budget_R[row]):
            which, place = _longest_context(key_S, token_C, known)
            if which < 0:
                break
            token = _choose(
                token_SK[place],
                logit_SK[place],
                seed_R[row],
                position_R[row],
                known,
                temperature_R[row],
            )
            token_C[known + 1] = token
            token_RD[row, number_R[row]] = token
            order_RD[row, number_R[row]] = which
            number_R[row] += 1
    return token_RD, order_RD, number_R


@njit(cache=True)
def _longest_context(key_S, token_C, known):  # type: ignore[no-untyped-def]
    """Which of `ORDERS` is the first whose context has an entry, and where that is; -1 if none."""
    for which in range(len(ORDERS)):
        if ORDERS[which] <= known:
            key = _context_key(token_C, known, ORDERS[which])
            place = _place(key, len(key_S))
            if key_S[place] == key:
                return which, place
    return -1, 0


@njit(cache=True)
def _choose(token_K, logit_K, seed, position, step, temperature):  # type: ignore[no-untyped-def]
    """`sampling.draw_thought_tokens` among the candidates."""
    if temperature == 0:
        return token_K[0]
    first, second = _row_keys(seed, position, step)
    chosen, best = token_K[0], -np.inf
    for index in range(len(token_K)):
        bits = _scramble(((np.uint64(token_K[index]) * GOLDEN_RATIO) & _MASK) ^ first)
        bits = _scramble(bits ^ second)
        uniform = (np.float64(bits >> 8) + 0.5) * 2.0**-24
        value = logit_K[index] - temperature * np.log(-np.log1p(-uniform))
        if value > best:
            chosen, best = token_K[index], value
    return chosen


@njit(cache=True)
def _row_keys(seed, position, step):  # type: ignore[no-untyped-def]
    """`sampling.row_keys`, of one row."""
    return (
        _row_key(seed, position, step, _FIRST_SALT),
        _row_key(seed, position, step, _SECOND_SALT),
    )


@njit(cache=True)
def _row_key(seed, position, step, salt):  # type: ignore[no-untyped-def]
    key = (np.uint64(seed) & _MASK) ^ salt
    for word in (seed >> 32, position, step):
        key = _scramble(key) ^ ((np.uint64(word & _MASK) * GOLDEN_RATIO) & _MASK)
    return _scramble(key)


@njit(cache=True)
def _scramble(bits):  # type: ignore[no-untyped-def]
    """The bijection of 32-bit integers that `sampling` uses; here they lie in 64 bits."""
    bits = ((bits ^ (bits >> 16)) * _FIRST_MULTIPLIER) & _MASK
    bits = ((bits ^ (bits >> 15)) * _SECOND_MULTIPLIER) & _MASK
    return bits ^ (bits >> 16)
