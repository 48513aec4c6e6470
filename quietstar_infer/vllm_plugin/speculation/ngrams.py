"""What thoughts have said so far: after which tokens, which were likely.

For the last 6, 4, 3, 2 and 1 tokens of a thought, and for its length alone, the table keeps the
likeliest tokens that followed when these came last, and their logits. A draft is chosen from the
entry of the longest context that there is, with the noise of the place that it is for: where the
logits are the same as then, it is the token that the thought itself will choose.

A table of fixed size without chains: what falls on a taken place replaces what is there. It is all
requests' together, because a short answer has no earlier thoughts. Compiled (numba), because a
draft has to take microseconds.

Shapes: S entries of the table, K candidates, C columns of a slot, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit  # type: ignore[import-untyped]
from vllm.triton_utils import dispatcher

from quietstar_infer.sampling import GOLDEN_RATIO, MULTIPLIERS, SALTS

NUM_CANDIDATES = 16
# Lengths of contexts, longest first. The last, 0, is the length of the thought so far alone.
ORDERS = np.array([6, 4, 3, 2, 1, 0])
# Where the levels of how far a draft is before the next likeliest begin, in nats.
_LEADS = np.array([0.25, 0.5, 1.0, 2.0, 4.0], dtype=np.float32)
NUM_KINDS = len(ORDERS) * (len(_LEADS) + 1)
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


class NgramTable(NamedTuple):
    """The table: of each entry the key of its context, never 0, and the likeliest tokens behind it
    with their logits, likeliest first.
    """

    key_S: npt.NDArray[np.uint64]
    token_SK: Int32Array
    logit_SK: Float32Array

    @classmethod
    def empty(cls) -> "NgramTable":
        return cls(
            np.zeros(_SIZE, dtype=np.uint64),
            np.zeros((_SIZE, NUM_CANDIDATES), dtype=np.int32),
            np.zeros((_SIZE, NUM_CANDIDATES), dtype=np.float32),
        )


@njit(cache=True)
def learn_token(table, is_borne_V, token_C, known, logits_V):  # type: ignore[no-untyped-def]
    """Keep what could follow the first `known` tokens of a thought, which lie in its slot from
    column 1 on, and that the model has borne the last of them; nothing, if a logit is not a number
    or infinite.
    """
    token_K = np.empty(NUM_CANDIDATES, dtype=np.int32)
    logit_K = np.empty(NUM_CANDIDATES, dtype=np.float32)
    if not _likeliest(logits_V, token_K, logit_K):
        return
    if known > 0:
        is_borne_V[token_C[known]] = True
    for order in ORDERS:
        if order > known:
            continue
        key = _context_key(token_C, known, order)
        place = _place(key, len(table.key_S))
        table.key_S[place] = key
        table.token_SK[place] = token_K
        table.logit_SK[place] = logit_K


@njit(cache=True)
def _likeliest(logits_V, token_K, logit_K):  # type: ignore[no-untyped-def]
    """Find the likeliest tokens, in order; False where a logit is NaN or infinite. Those at -inf
    are never sampled.
    """
    token_K[:] = 0
    logit_K[:] = -np.inf
    least = logit_K[-1]
    for token in range(len(logits_V)):
        logit = logits_V[token]
        if logit > least:
            place = len(logit_K) - 1
            while place > 0 and logit_K[place - 1] < logit:
                logit_K[place], token_K[place] = logit_K[place - 1], token_K[place - 1]
                place -= 1
            logit_K[place], token_K[place] = logit, token
            least = logit_K[-1]
        elif np.isnan(logit):
            return False
    return np.isfinite(logit_K[0])


@njit(cache=True)
def draft_token(table, token_C, known, seed, position, temperature):  # type: ignore[no-untyped-def]
    """What is likely to follow the first `known` tokens of a thought, from column 1 on, with the
    noise of its place: the kind of draft, by which it is counted how often such are right, and the
    token. The kind is -1 where nothing is known.
    """
    which, place = _longest_context(table.key_S, token_C, known)
    if which < 0:
        return which, np.int32(0)
    token, lead = _choose(
        table.token_SK[place], table.logit_SK[place], seed, position, known, temperature
    )
    level = 0
    while level < len(_LEADS) and lead >= _LEADS[level]:
        level += 1
    return which * (len(_LEADS) + 1) + level, token


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
    """`sampling.draw_thought_tokens` among the candidates, and how far before the next it is."""
    if temperature == 0:
        return token_K[0], logit_K[0] - logit_K[1]
    first, second = _row_keys(seed, position, step)
    chosen, best, next_best = token_K[0], -np.inf, -np.inf
    for index in range(len(token_K)):
        bits = _scramble(((np.uint64(token_K[index]) * GOLDEN_RATIO) & _MASK) ^ first)
        bits = _scramble(bits ^ second)
        uniform = (np.float64(bits >> 8) + 0.5) * 2.0**-24
        value = logit_K[index] - temperature * np.log(-np.log1p(-uniform))
        if value > best:
            chosen, best, next_best = token_K[index], value, best
        elif value > next_best:
            next_best = value
    return chosen, np.float32(best - next_best)


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
