"""Each request's drafts for its next pass, and how sure they are.

Shapes: R rows, C columns of a slot, U sampled tokens, V vocabulary, D drafts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThinkingRequest
from quietstar_infer.vllm_plugin.speculation.ngrams import (
    NUM_CANDIDATES,
    ORDERS,
    DraftRequests,
    Int32Array,
    ThoughtNgrams,
)
from quietstar_infer.vllm_plugin.thought_rows import Int64Array

# After so many drafts from contexts of a length, what was seen before counts half.
_HALF_LIFE = 512


class Drafts(NamedTuple):
    """Drafted tokens, (D,), and which of `ORDERS` each comes from, (D,). Those of a given thought
    come from none, and are right.
    """

    token_D: Int32Array
    order_D: Int64Array


class DraftedThought(NamedTuple):
    """A thought about the text token at `position` of a request whose next tokens are to be
    drafted: `known` of its `budget` tokens are there, and `num_given` in its slot: all or none.
    """

    request_id: str
    known: int
    budget: int
    num_given: int
    position: int
    request: ThinkingRequest


class ThoughtDrafter:
    """Drafts for the requests of a worker. Every tensor-parallel rank drafts the same, because all
    have the same logits.
    """

    def __init__(self) -> None:
        self._ngrams = ThoughtNgrams()
        self._drafts: dict[str, Drafts] = {}
        # By the length of the context: of how many drafts, behind right ones, how many were right.
        # As if of two one had been.
        self._right_O = np.full(len(ORDERS), 1.0)
        self._tested_O = np.full(len(ORDERS), 2.0)
        # Tokens that thoughts have fed and the model has borne. A wrong draft must do no harm: of
        # one that overflows, vLLM's attention on the CPU would take NaN into the tokens before it,
        # because it reads a block to its end, with weights of 0 behind the text.
        self._is_borne_V = np.zeros(0, dtype=np.bool_)

    def learn(
        self, token_RC: Int32Array, row_U: Int64Array, known_U: Int64Array, logits_UV: torch.Tensor
    ) -> None:
        """Learn from the logits, (U, V), of what follows the first `known_U` tokens of thoughts,
        each in its row of `token_RC`; not from numbers that are not finite.
        """
        values_UK, indices_UK = logits_UV.float().topk(NUM_CANDIDATES, dim=-1)
        logit_UK, candidate_UK = values_UK.cpu().numpy(), indices_UK.cpu().numpy()
        # NaN is larger than any number.
        is_finite_U = np.isfinite(logit_UK[:, 0])
        if not is_finite_U.all():
            logit_UK, candidate_UK = logit_UK[is_finite_U], candidate_UK[is_finite_U]
            row_U, known_U = row_U[is_finite_U], known_U[is_finite_U]
        self._ngrams.learn(token_RC, row_U, known_U, candidate_UK, logit_UK)
        if not self._is_borne_V.size:
            self._is_borne_V = np.zeros(logits_UV.shape[1], dtype=np.bool_)
        self._is_borne_V[token_RC[row_U, known_U][known_U > 0]] = True

    def propose(
        self, thoughts: Sequence[DraftedThought], token_RC: Int32Array, drafting: Drafting
    ) -> dict[str, int]:
        """Draft the rest of each thought, whose known tokens are in its row of `token_RC`, as far
        as it is likely enough to be right. Returns how many drafts each has, if any.
        """
        if not self._is_borne_V.size:
            return {}  # nothing has been learnt yet
        requests = DraftRequests(
            np.array([thought.known for thought in thoughts], dtype=np.int64),
            np.array([thought.budget for thought in thoughts], dtype=np.int64),
            np.array([thought.request.seed for thought in thoughts], dtype=np.int64),
            np.array([thought.position for thought in thoughts], dtype=np.int64),
            np.array([thought.request.temperature for thought in thoughts], dtype=np.float32),
        )
        token_RD, order_RD, number_R = self._ngrams.draft(token_RC, requests)
        chance_RD = (self._right_O / self._tested_O)[order_RD].cumprod(axis=1)
        chance_RD *= self._is_borne_V[token_RD].cumprod(axis=1)
        likely_R = ((chance_RD >= drafting.least_chance) & (chance_RD > 0)).sum(axis=1)
        numbers = np.minimum(np.minimum(number_R, likely_R), drafting.max_drafts).tolist()
        for row, (thought, number) in enumerate(zip(thoughts, numbers, strict=True)):
            drafts = Drafts(token_RD[row, :number], order_RD[row, :number])
            if thought.num_given:
                drafts = _given_drafts(thought, token_RC[row], drafting.max_drafts)
            self._drafts[thought.request_id] = drafts
        numbers_of = {
            each.request_id: len(self._drafts[each.request_id].token_D) for each in thoughts
        }
        return {request_id: number for request_id, number in numbers_of.items() if number}

    def take(self, request_id: str, number: int) -> Drafts:
        """Remove a request's drafts, and return the first so many."""
        drafts = self._drafts.pop(request_id)
        return Drafts(drafts.token_D[:number], drafts.order_D[:number])

    def record(self, drafts: Drafts, accepted: int) -> None:
        """Learn how often drafts are right: the first so many of these were; what comes after the
        first wrong one was not put to the test.
        """
        tested_D = drafts.order_D[: accepted + 1]
        np.add.at(self._tested_O, tested_D, 1.0)
        np.add.at(self._right_O, drafts.order_D[:accepted], 1.0)
        self._fade(tested_D)

    def _fade(self, order_D: npt.NDArray[np.int64]) -> None:
        full_O = self._tested_O > _HALF_LIFE
        if full_O[order_D].any():
            self._tested_O[full_O] *= 0.5
            self._right_O[full_O] *= 0.5

    def forget(self, request_id: str) -> None:
        """Drop a request's drafts, if it has any."""
        self._drafts.pop(request_id, None)

    @classmethod
    def warm_up(cls) -> None:
        """Have what is compiled compiled before a request waits for it."""
        scratch, token_RC = cls(), np.zeros((1, 3), dtype=np.int32)
        zero_U = np.zeros(1, dtype=np.int64)
        scratch.learn(token_RC, zero_U, zero_U, torch.zeros(1, NUM_CANDIDATES))
        thought = DraftedThought("", 0, 1, 0, 0, ThinkingRequest(0, 1.0, 0.0, None, ()))
        scratch.propose([thought], token_RC, Drafting(1, 0.0, False))


def _given_drafts(thought: DraftedThought, token_C: Int32Array, max_drafts: int) -> Drafts:
    """The rest of a given thought, which is in its slot."""
    token_D = token_C[thought.known + 1 : thought.num_given + 1][:max_drafts]
    return Drafts(token_D, np.zeros(0, dtype=np.int64))
