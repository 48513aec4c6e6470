"""The passes of thoughts with drafts: what each feeds, and what came of it.

Compiled (numba): between two passes of a small model, everything here has to take microseconds.

Shapes: R thoughts, one in each row of the batch; N tokens of a pass, U of them behind which one is
sampled, D kinds of drafts, V vocabulary, S slots, C columns of a slot.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit  # type: ignore[import-untyped]

from quietstar_infer.vllm_plugin.speculation.ngrams import (
    NUM_KINDS,
    Float32Array,
    Int32Array,
    draft_token,
    learn_token,
)
from quietstar_infer.vllm_plugin.thought_rows import Int64Array
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs

# After so many drafts of a kind, what was seen before counts half.
_HALF_LIFE = 512
# So many drafts of a kind tell little.
_FEW = 4.0

THOUGHT = np.dtype(
    [
        # What does not change: see `ThoughtInputs`.
        ("slot", np.int64),
        ("seed", np.int64),
        ("position", np.int64),
        ("temperature_bits", np.int64),
        ("num_given", np.int64),
        ("budget", np.int64),
        # How many of its tokens are known: the last of them, or START, is fed next.
        ("known", np.int64),
        # x_p, if it is still to be fed, else -1.
        ("text_token", np.int64),
        # Of the pass that is being run: the place of its own token, and how many drafts are behind.
        ("place", np.int64),
        ("num_drafts", np.int64),
        ("temperature", np.float32),
        # Whether END has been fed behind the whole thought.
        ("has_ended", np.bool_),
    ],
    align=True,
)
"""A thought between two passes."""


class FedTokens(NamedTuple):
    """Room for what a pass feeds.

    `token_N`, `position_N`: the tokens, and where they lie in their requests. `kind_N`: of drafts
    (`draft_token`); -1 if given. `length_R`: how many tokens each row feeds, from position
    `start_R` on. `input_U8`: those behind which one is sampled, as `ThoughtInputs`, whose rows are
    those of their logits.
    """

    token_N: Int32Array
    position_N: Int64Array
    kind_N: Int64Array
    length_R: Int64Array
    start_R: Int64Array
    input_U8: Int64Array

    @classmethod
    def for_at_most(cls, num_tokens: int, num_rows: int) -> "FedTokens":
        return cls(
            np.zeros(num_tokens, dtype=np.int32),
            np.zeros(num_tokens, dtype=np.int64),
            np.zeros(num_tokens, dtype=np.int64),
            np.zeros(num_rows, dtype=np.int64),
            np.zeros(num_rows, dtype=np.int64),
            np.zeros((num_tokens, len(ThoughtInputs._fields)), dtype=np.int64),
        )


class DraftRecord(NamedTuple):
    """How often drafts are right.

    `right_D` of `tested_D` drafts of each kind; only what comes behind right ones is put to the
    test. `is_borne_V`: tokens that thoughts have fed and the model has borne. A wrong draft must do
    no harm: of one that overflows, vLLM's attention on the CPU would take NaN into the tokens
    before it, because it reads a block to its end, with weights of 0 behind the text.
    """

    right_D: npt.NDArray[np.float64]
    tested_D: npt.NDArray[np.float64]
    is_borne_V: npt.NDArray[np.bool_]

    @classmethod
    def empty(cls, vocab_size: int) -> "DraftRecord":
        """Nothing has been drafted."""
        return cls(np.zeros(NUM_KINDS), np.zeros(NUM_KINDS), np.zeros(vocab_size, dtype=np.bool_))


class PassOutcome(NamedTuple):
    """What came of a pass: how many drafts it fed, how many of these were right, how many thought
    tokens it has found, and how many thoughts ended.
    """

    drafted: int
    accepted: int
    found: int
    ended: int


@njit(cache=True)
def lay_out(  # type: ignore[no-untyped-def]
    thoughts_R, table, record, token_SC, fed, end_token_id, max_drafts, least_chance
):
    """Say what the next pass feeds: of each thought that has not ended x_p, if it is still to be
    fed, its own next token, drafts as far as they are likely enough to be right, and END where they
    complete it; of the others END once more, because no row of a batch may be without tokens.
    Returns the numbers N and U.
    """
    # x_p, a token of its own and END: those there is room for.
    room = len(fed.token_N) - 3 * len(thoughts_R)
    chance_D = _chances(record)
    place = sampled = 0
    token_C = np.zeros(token_SC.shape[1], dtype=np.int32)
    for row in range(len(thoughts_R)):
        thought = thoughts_R[row]
        first = place
        if thought.has_ended:
            fed.token_N[place] = end_token_id
            fed.position_N[place] = thought.position + thought.budget + 2
            place += 1
        else:
            if thought.text_token >= 0:
                fed.token_N[place] = thought.text_token
                fed.position_N[place] = thought.position
                place += 1
            thought.place = place
            token_C[:] = token_SC[thought.slot]
            most = min(max_drafts, thought.budget - thought.known, max(room, 0))
            number = _draft(
                thought, table, record.is_borne_V, chance_D, token_C, fed.kind_N, most, least_chance
            )
            room -= number
            thought.num_drafts = number
            completes = thought.known + number == thought.budget
            if completes:
                token_C[thought.budget + 1] = end_token_id
            for index in range(number + 1 + completes):
                fed.token_N[place] = token_C[thought.known + index]
                fed.position_N[place] = thought.position + 1 + thought.known + index
                if index + completes <= number:
                    _ask_for_sample(fed.input_U8[sampled], sampled, place, thought, index)
                    sampled += 1
                place += 1
        fed.length_R[row] = place - first
        fed.start_R[row] = fed.position_N[first]
    return place, sampled


@njit(cache=True)
def _ask_for_sample(input_8, row, place, thought, index):  # type: ignore[no-untyped-def]
    input_8[0] = row
    input_8[1] = place
    input_8[2] = thought.slot
    input_8[3] = thought.known + index
    input_8[4] = thought.seed
    input_8[5] = thought.position
    input_8[6] = thought.temperature_bits
    input_8[7] = thought.num_given


@njit(cache=True)
def _chances(record):  # type: ignore[no-untyped-def]
    """How likely a draft of each kind is right, (D,): as often as such were, and what all were for
    as many more as `_FEW`; before there are any, every other one.
    """
    of_all = (1.0 + record.right_D.sum()) / (2.0 + record.tested_D.sum())
    return (record.right_D + _FEW * of_all) / (record.tested_D + _FEW)


@njit(cache=True)
def _draft(thought, table, is_borne_V, chance_D, token_C, kind_N, most, least_chance):  # type: ignore[no-untyped-def]
    """Put drafts of a thought behind its known tokens; returns how many there are."""
    chance, number = 1.0, 0
    while number < most:
        known = thought.known + number
        if thought.num_given > 0:
            kind = -1
        else:
            kind, token = draft_token(
                table, token_C, known, thought.seed, thought.position, thought.temperature
            )
            if kind < 0 or not is_borne_V[token]:
                break
            chance *= chance_D[kind]
            if chance < least_chance or chance == 0.0:
                break
            token_C[known + 1] = token
        kind_N[thought.place + 1 + number] = kind
        number += 1
    return number


@njit(cache=True)
def settle(  # type: ignore[no-untyped-def]
    thoughts_R, table, record, token_SC, fed, sampled_U, logits_UV
):
    """Compare drafts with what was sampled behind the token before each, learn from that, and have
    each thought go on behind its last right one. Returns the numbers of `PassOutcome`.
    """
    drafted = accepted = found = ended = start = 0
    for row in range(len(thoughts_R)):
        thought = thoughts_R[row]
        if thought.has_ended:
            continue
        number, first = thought.num_drafts, thought.place + 1
        completes = thought.known + number == thought.budget
        right = 0
        while right < number and fed.token_N[first + right] == sampled_U[start + right]:
            right += 1
        _count(record, fed.kind_N[first : first + number], right)
        num_sampled = number + 1 - completes
        for index in range(min(right + 1, num_sampled)):
            learn_token(
                table,
                record.is_borne_V,
                token_SC[thought.slot],
                thought.known + index,
                logits_UV[start + index],
            )
        thought.text_token = -1
        thought.has_ended = completes and right == number
        thought.known += right + 1 - thought.has_ended
        start += num_sampled
        drafted += number
        accepted += right
        found += right + 1 - thought.has_ended
        ended += thought.has_ended
    return drafted, accepted, found, ended


@njit(cache=True)
def _count(record, kind_D, right):  # type: ignore[no-untyped-def]
    """Learn how often drafts are right: the first so many of these were; what comes after the first
    wrong one was not put to the test.
    """
    for index in range(min(right + 1, len(kind_D))):
        kind = kind_D[index]
        if kind < 0:
            continue
        record.tested_D[kind] += 1.0
        if index < right:
            record.right_D[kind] += 1.0
        if record.tested_D[kind] > _HALF_LIFE:
            record.tested_D[kind] *= 0.5
            record.right_D[kind] *= 0.5


@njit(cache=True)
def learn_tokens(table, is_borne_V, token_SC, slot_U, known_U, row_U, logits_NV):  # type: ignore[no-untyped-def]
    """Learn what follows the first `known_U` tokens of thoughts in these slots, from these rows of
    the logits.
    """
    for index in range(len(slot_U)):
        learn_token(
            table,
            is_borne_V,
            token_SC[slot_U[index]],
            known_U[index],
            logits_NV[row_U[index]],
        )


def contiguous_logits(logits_NV: Any) -> Float32Array:
    """A tensor of logits as what is compiled takes them; on CUDA this waits for the device."""
    logits: Float32Array = logits_NV.float().contiguous().cpu().numpy()
    return logits
