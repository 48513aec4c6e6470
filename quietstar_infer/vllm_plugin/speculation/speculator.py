"""Drafts thought tokens, feeds them and finds out which of them were right, in the passes that a
worker runs one after the other until the batch's thoughts have ended.

Shapes: R thoughts, one in each row of the batch; N tokens of a pass, B of them x_p, U of them
behind which one is sampled; E thoughts that end in it, H hidden, V vocabulary, S slots, C columns
of a slot.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.vllm_plugin.metrics import ThoughtMetrics
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.speculation.drafted import DraftedPass, DraftedThoughts
from quietstar_infer.vllm_plugin.speculation.ngrams import Int32Array, NgramTable
from quietstar_infer.vllm_plugin.speculation.passes import (
    THOUGHT,
    DraftRecord,
    FedTokens,
    PassOutcome,
    contiguous_logits,
    lay_out,
    learn_tokens,
    settle,
)
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs, ThoughtSampler, unpack

ComputeLogits = Callable[[torch.Tensor], torch.Tensor | None]


class ThoughtSpeculator:
    """The speculative part of a worker's thoughts, on what it keeps of them in slots. Every
    tensor-parallel rank drafts the same, because all have the same logits.
    """

    def __init__(
        self,
        slots: ThoughtSlots,
        sampler: ThoughtSampler,
        metrics: ThoughtMetrics,
        vocab_size: int,
        max_tokens: int,
        device: torch.device,
    ) -> None:
        """`max_tokens`: the most that a pass may feed."""
        self._slots = slots
        self._sampler = sampler
        self._metrics = metrics
        self._device = device
        self._table = NgramTable.empty()
        self._record = DraftRecord.empty(vocab_size)
        self._fed = FedTokens.for_at_most(max_tokens, slots.base_SH.shape[0])
        # Of a pass in which all feed their last token and END: vLLM computes no logits of no rows.
        self._none_sampled = np.zeros(0, np.int32), np.zeros((0, vocab_size), np.float32)
        self._end_token_id = int(slots.token_SC[0, slots.end_column])

    def warm_up(self) -> None:
        """Have what is compiled compiled before a request waits for it."""
        scratch_SC = self._host_tokens()[:1].copy()
        table, vocab_size = NgramTable.empty(), self._record.is_borne_V.size
        record, fed = DraftRecord.empty(vocab_size), FedTokens.for_at_most(8, 1)
        zero_U, logits_UV = np.zeros(1, dtype=np.int64), np.zeros((1, vocab_size), np.float32)
        learn_tokens(table, record.is_borne_V, scratch_SC, zero_U, zero_U, zero_U, logits_UV)
        thought_R = np.zeros(1, dtype=THOUGHT)
        thought_R["budget"] = 1
        lay_out(thought_R, table, record, scratch_SC, fed, self._end_token_id, 1, 0.0)
        settle(thought_R, table, record, scratch_SC, fed, np.zeros(1, np.int32), logits_UV)

    def next_pass(self, thoughts: DraftedThoughts) -> DraftedPass:
        """Lay out what the thoughts that have not ended feed next. Valid until the next call."""
        fed, drafting = self._fed, thoughts.drafting
        num_tokens, num_sampled = lay_out(
            thoughts.thought_R,
            self._table,
            self._record,
            self._host_tokens(),
            fed,
            self._end_token_id,
            drafting.max_drafts,
            drafting.least_chance,
        )
        rows = len(thoughts.thought_R)
        return DraftedPass(
            fed.token_N[:num_tokens],
            fed.position_N[:num_tokens],
            fed.length_R[:rows],
            fed.start_R[:rows],
            fed.input_U8[:num_sampled],
        )

    def verify(
        self,
        thoughts: DraftedThoughts,
        laid_out: DraftedPass,
        hidden_NH: torch.Tensor,
        compute_logits: ComputeLogits,
    ) -> None:
        """Sample behind the tokens of each thought as it would have, one by one, and see how many
        of its drafts were right. What was sampled behind these is in its slot then.
        """
        thought_R, num_rows = thoughts.thought_R, thoughts.num_going_on
        if thoughts.num_passes == 0:
            self._keep_base(thought_R, hidden_NH)
        sampled_U, logits_UV = self._none_sampled
        if len(laid_out.input_U8):
            packed_U8 = async_tensor_h2d(laid_out.input_U8, device=self._device)
            logits = compute_logits(hidden_NH[unpack(packed_U8).place])
            assert logits is not None, "every rank has all logits"
            sampled = self._sampler(logits, packed_U8, self._slots.token_SC, thoughts.is_greedy)
            sampled_U, logits_UV = sampled.cpu().numpy(), contiguous_logits(logits)
        outcome = PassOutcome(
            *settle(
                thought_R,
                self._table,
                self._record,
                self._host_tokens(),
                self._fed,
                sampled_U,
                logits_UV,
            )
        )
        thoughts.advance(hidden_NH, outcome.ended)
        self._metrics.add_drafted_pass(num_rows, outcome)

    def _keep_base(self, thought_R: npt.NDArray[Any], hidden_NH: torch.Tensor) -> None:
        """Keep x_p's hidden states, where it has been fed."""
        row_B = np.flatnonzero(thought_R["text_token"] >= 0)
        if row_B.size:
            place_B = thought_R["place"][row_B] - 1
            self._slots.base_SH[thought_R["slot"][row_B]] = hidden_NH[place_B]

    def learn(self, inputs: Sequence[ThoughtInputs], logits_NV: torch.Tensor) -> None:
        """Learn from the logits, in their rows, behind tokens that are the thoughts' own."""
        own = ThoughtInputs(*np.array(inputs, dtype=np.int64).T.copy())
        learn_tokens(
            self._table,
            self._record.is_borne_V,
            self._host_tokens(),
            own.slot,
            own.column,
            own.row,
            contiguous_logits(logits_NV),
        )

    def _host_tokens(self) -> Int32Array:
        """What is in the slots, (S, C); on CUDA this waits for the device."""
        tokens: Int32Array = self._slots.token_SC.cpu().numpy()
        return tokens
