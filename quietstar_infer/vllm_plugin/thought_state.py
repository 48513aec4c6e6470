"""All there is to a thought on the worker, and its life from phase 0 to the mixed logits.

A thought of b tokens takes b + 1 passes (see `ThoughtStep`), in each of which it is one row of
vLLM's batch. The model runner calls, in this order:

    add_request            once, before the request's first pass
    prepare_inputs         before the model: what each thought feeds
    process_hidden_states  after the model: keep the base hidden state, or mix it with the thought's
    decide                 after the language-model head: which of the gated requests think
    process_logits         after the language-model head: sample the next thought tokens
    process_samples        after vLLM's sampler: log the thoughts that were asked for
    remove_request         once, when the request has ended

Between two passes a thought consists of what its slot holds (`slots`).

Shapes: N tokens of the batch (of logits: rows), R thinking rows, G of them in their gate pass and L
in their last pass, F = R + L places: of what they feed beside x_p, and, in gate passes, of x_p; W
thoughts to be logged, H hidden, V vocabulary.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import CompilationMode, VllmConfig
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.vllm_plugin.logits_processors import ForcedTokens, SampleCheck
from quietstar_infer.vllm_plugin.metrics import ThoughtMetrics
from quietstar_infer.vllm_plugin.model import QuietStarMixin
from quietstar_infer.vllm_plugin.options import thinking_setup
from quietstar_infer.vllm_plugin.schedule_plan import ThinkingRequest
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.thought_log import ThoughtLog, ThoughtOwner, UnsampledThoughts
from quietstar_infer.vllm_plugin.thought_rows import ThoughtRows, fed_places
from quietstar_infer.vllm_plugin.thought_sampler import (
    ThoughtInputs,
    ThoughtSampler,
    bits_of,
    unpack,
    upload,
)


class ThoughtBatch(NamedTuple):
    """The thoughts of one pass.

    `position_R`: where the text tokens that they are about lie in their requests. `packed_F7`, on
    the device: what they feed, of `rows` in order, then the ENDs; `inputs` are its columns.
    `weight_L1`: the mixing weights, once known. Of gate passes `base_GH`: the base hidden states,
    once known; `thinks_G`: the outcome, once decided.
    """

    rows: ThoughtRows
    position_R: npt.NDArray[np.int64]
    packed_F7: torch.Tensor
    inputs: ThoughtInputs
    weight_L1: torch.Tensor | None = None
    base_GH: torch.Tensor | None = None
    thinks_G: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    @property
    def beginning(self) -> npt.NDArray[np.int64]:
        """The batch's rows in which, in their gate pass, a thought was decided for."""
        return self.rows.row_R[self.rows.gates][self.thinks_G]

    @property
    def skipped(self) -> list[int]:
        """Which of `rows` are gate passes in which it was decided against."""
        return [index for index, thinks in enumerate(self.thinks_G) if not thinks]


class DecodeBatch(NamedTuple):
    """The thoughts of a decode-only pass: in every row of the batch one feeds a thought token and
    samples the next. `packed_R7` is on the device, `inputs` are its columns.
    """

    packed_R7: torch.Tensor
    inputs: ThoughtInputs
    is_greedy: bool


class _Thinker(NamedTuple):
    request: ThinkingRequest
    temperature_bits: int


class ThoughtState:
    """The thinking requests of a worker and what is kept of their thoughts on its device."""

    def __init__(
        self, vllm_config: VllmConfig, model: QuietStarMixin, device: torch.device
    ) -> None:
        setup = thinking_setup(vllm_config)
        self._model = model
        self._device = device
        self._vocab_size = vllm_config.model_config.get_vocab_size()
        self._thinkers: dict[str, _Thinker] = {}
        dtype = vllm_config.model_config.dtype
        assert isinstance(dtype, torch.dtype), "vLLM has resolved it by now"
        self.slots = ThoughtSlots(
            num_slots=vllm_config.scheduler_config.max_num_seqs,
            max_budget=setup.limits.max_budget,
            meta_token_ids=setup.config.meta_token_ids,
            hidden_size=vllm_config.model_config.get_hidden_size(),
            dtype=dtype,
            device=device,
        )
        compilation = vllm_config.compilation_config
        self.sampler = ThoughtSampler(is_compiled=compilation.mode != CompilationMode.NONE)
        self.sample_check = SampleCheck(setup.config.meta_token_ids)
        self.forced_tokens = ForcedTokens(device)
        self.log = ThoughtLog(setup.max_recorded_thought_tokens)
        self.metrics = ThoughtMetrics(device)

    def warm_up(self) -> None:
        """Have the sampler of thought tokens compiled before a request waits for it."""
        self.sampler.warm_up(self._vocab_size, self.slots.base_SH.dtype, self.slots.token_SC)

    # --- requests

    def add_request(self, request_id: str, request: ThinkingRequest) -> None:
        """A request that thinks is scheduled for the first time."""
        self._thinkers[request_id] = _Thinker(request, bits_of(request.temperature))

    def drop_thought(self, request_id: str) -> None:
        """A request is preempted; if it was in mid-thought, it will think that thought again."""
        self.slots.release(request_id)

    def remove_request(self, request_id: str) -> None:
        """A request, thinking or not, has ended."""
        self.slots.release(request_id)
        self._thinkers.pop(request_id, None)

    # --- one pass

    def prepare_inputs(
        self,
        rows: ThoughtRows,
        position_R: npt.NDArray[np.int64],
        query_start_loc: npt.NDArray[np.int32],
        input_N: torch.Tensor,
    ) -> ThoughtBatch:
        """Write START, thought tokens and END into the batch's input tokens, in their places.

        `query_start_loc` is where each row of the batch begins among its tokens, and at last where
        all end.
        """
        place_R = fed_places(rows, query_start_loc)
        phases = [step.phase for step in rows.steps]
        fed = self._fed(rows.request_ids, rows.row_R, place_R, phases, position_R)
        end = self.slots.end_column
        fed += [each._replace(place=each.place + 1, column=end) for each in fed[rows.last]]

        packed_F7 = upload(fed, self._device)
        inputs = unpack(packed_F7)
        if rows.num_gates < len(fed):
            slot_F, column_F = inputs.slot[rows.fed], inputs.column[rows.fed]
            input_N[inputs.place[rows.fed]] = self.slots.token_SC[slot_F, column_F]
        return ThoughtBatch(rows, position_R, packed_F7, inputs)

    def process_hidden_states(self, batch: ThoughtBatch, hidden_NH: torch.Tensor) -> ThoughtBatch:
        """Gate and first passes: keep the base hidden state, x_p's. Last passes: put the mixed
        hidden state in the place of END's, which the language-model head reads.
        """
        rows, inputs = batch.rows, batch.inputs
        if rows.num_gates:
            base_GH = hidden_NH[inputs.place[rows.gates]]
            self.slots.base_SH[inputs.slot[rows.gates]] = base_GH
            batch = batch._replace(base_GH=base_GH)
        if rows.num_first:
            slot, place = inputs.slot[rows.first], inputs.place[rows.first]
            self.slots.base_SH[slot] = hidden_NH[place - 1]
        if rows.num_last:
            slot_L, place_L = inputs.slot[rows.ends], inputs.place[rows.ends]
            base_LH, thought_LH = self.slots.base_SH[slot_L], hidden_NH[place_L]
            mixed_LH, weight_L1 = self._model.mix_thoughts(base_LH, thought_LH)
            hidden_NH[place_L] = mixed_LH
            self.metrics.add_weights(weight_L1)
            batch = batch._replace(weight_L1=weight_L1)
        return batch

    def decide(self, batch: ThoughtBatch, logits_NV: torch.Tensor) -> ThoughtBatch:
        """In gate passes: think where the thought is expected to save more than the request's
        threshold. The others' logits are for vLLM's sampler: their slots are free after the pass.

        Waits for the device: what vLLM samples in this pass depends on it.
        """
        rows = batch.rows
        if batch.base_GH is None:
            return batch
        gates = rows.gates
        budgets = np.array([step.budget for step in rows.steps[gates]])
        thresholds = [
            self._thinkers[request_id].request.threshold for request_id in rows.request_ids[gates]
        ]
        budget_G = async_tensor_h2d(budgets, device=self._device)
        logits_GV = logits_NV[batch.inputs.row[gates]]
        gain_G = self._model.expected_gain(batch.base_GH, logits_GV, budget_G)
        gains = gain_G.cpu().numpy()
        thinks_G = gains > np.array(thresholds)
        self.metrics.add_decisions(gains, int(thinks_G.sum()))
        return batch._replace(thinks_G=thinks_G)

    def process_logits(
        self, batch: ThoughtBatch, logits_NV: torch.Tensor
    ) -> UnsampledThoughts | None:
        """Sample the next token of every unfinished thought. The logits of the others are the
        mixed ones, for vLLM's sampler: their slots are free again.

        Returns what is to be logged. To be called before grammar and sampler change the logits in
        place.
        """
        rows = batch.rows
        unfinished = rows.unfinished
        if unfinished.stop > unfinished.start:
            is_greedy = self._are_greedy(rows.request_ids[unfinished])
            packed_U7 = batch.packed_F7[unfinished]
            self.sampler(logits_NV, packed_U7, self.slots.token_SC, is_greedy)
        self._force_tokens(rows)
        unsampled = self._to_be_logged(batch, logits_NV)
        skipped = [rows.request_ids[index] for index in batch.skipped]
        for request_id in (*skipped, *rows.request_ids[rows.last]):
            self.slots.release(request_id)
        return unsampled

    def process_samples(self, unsampled: UnsampledThoughts, sampled_N: torch.Tensor) -> None:
        """Log thoughts, now that the visible tokens of the batch's rows are sampled, (N,)."""
        finished = unsampled.finish(sampled_N)
        self.metrics.add_gain_errors(finished.gain_errors)
        self.log.add(finished)

    # --- decode-only passes

    def prepare_decode(
        self,
        request_ids: list[str],
        row_R: npt.NDArray[Any],
        phases: list[int],
        position_R: npt.NDArray[np.int64],
    ) -> DecodeBatch:
        """For the first of one or more passes in which the batch's rows all decode thoughts, each
        row one token of the batch.
        """
        fed = self._fed(request_ids, row_R, row_R, phases, position_R)
        packed_R7 = upload(fed, self._device)
        return DecodeBatch(packed_R7, unpack(packed_R7), self._are_greedy(request_ids))

    def fed_tokens(self, batch: DecodeBatch) -> torch.Tensor:
        """The thought tokens that the pass feeds, (R,)."""
        return self.slots.token_SC[batch.inputs.slot, batch.inputs.column]

    def decode(self, batch: DecodeBatch, hidden_RH: torch.Tensor) -> torch.Tensor:
        """Sample the next thought tokens, (R,), from what the model made of the fed ones."""
        logits_RV = self._model.compute_logits(hidden_RH)
        assert logits_RV is not None, "every rank has all logits"
        return self.sampler(logits_RV, batch.packed_R7, self.slots.token_SC, batch.is_greedy)

    def advance(self, batch: DecodeBatch) -> None:
        """On the device, make the batch that of the next pass."""
        batch.inputs.column.add_(1)

    # --- parts

    def _fed(
        self,
        request_ids: list[str],
        row_R: npt.NDArray[Any],
        place_R: npt.NDArray[Any],
        phases: list[int],
        position_R: npt.NDArray[Any],
    ) -> list[ThoughtInputs]:
        """The token of its own that each thought feeds in a pass, END not counted."""
        fed = []
        where = zip(row_R.tolist(), place_R.tolist(), phases, position_R.tolist(), strict=True)
        for request_id, (row, place, phase, position) in zip(request_ids, where, strict=True):
            slot, (request, bits) = self.slots.acquire(request_id), self._thinkers[request_id]
            fed.append(ThoughtInputs(row, place, slot, phase, request.seed, position, bits))
        return fed

    def _are_greedy(self, request_ids: list[str]) -> bool:
        return not any(self._thinkers[request_id].request.temperature for request_id in request_ids)

    def _force_tokens(self, rows: ThoughtRows) -> None:
        """Have vLLM's sampler yield the given tokens of requests that score a text."""
        forced = [
            (row, tokens[step.index])
            for request_id, row, step in zip(
                rows.request_ids, rows.row_R.tolist(), rows.steps, strict=True
            )
            if (step.is_gate or step.is_last)
            and (tokens := self._thinkers[request_id].request.forced_tokens)
        ]
        self.forced_tokens.force([row for row, _ in forced], [token for _, token in forced])

    def _to_be_logged(
        self, batch: ThoughtBatch, logits_NV: torch.Tensor
    ) -> UnsampledThoughts | None:
        """The thoughts that end in this pass, and those that were decided against, that were asked
        for. Only the former cost another row of logits, that of their base.
        """
        skipped = self._logged(batch.rows, batch.skipped)
        ended = self._logged(batch.rows, range(len(batch.rows.steps))[batch.rows.last])
        owners = [owner for _, owner in (*skipped, *ended)]
        if not owners:
            return None
        wanted = [index for index, _ in (*skipped, *ended)]
        wanted_W = async_tensor_h2d(wanted, device=self._device, dtype=torch.int64)
        slot_W, row_W = batch.inputs.slot[wanted_W], batch.inputs.row[wanted_W]
        base_WH, logits_WV = self.slots.base_SH[slot_W], logits_NV[row_W]
        base_WV = logits_WV.clone()
        weight_W1 = base_WH.new_zeros(len(wanted), 1)
        if ended:
            base_EV = self._model.compute_logits(base_WH[len(skipped) :])
            assert base_EV is not None, "every rank has all logits"
            base_WV[len(skipped) :] = base_EV
            assert batch.weight_L1 is not None, "thoughts that end are mixed"
            first = batch.rows.last.start
            weight_W1[len(skipped) :] = batch.weight_L1[wanted_W[len(skipped) :] - first]
        budgets = [owner.step.budget for owner in owners]
        budget_W = async_tensor_h2d(budgets, device=self._device, dtype=torch.int64)
        return UnsampledThoughts(
            owners,
            len(skipped),
            row_W,
            self.slots.token_SC[slot_W, 1:-1],
            weight_W1,
            self._model.expected_gain(base_WH, base_WV, budget_W),
            torch.stack([base_WV, logits_WV], dim=1).log_softmax(dim=-1, dtype=torch.float32),
        )

    def _logged(self, rows: ThoughtRows, indices: Iterable[int]) -> list[tuple[int, ThoughtOwner]]:
        """Of these of the rows, those whose thoughts were asked for, and by whom."""
        found = []
        for index in indices:
            request_id = rows.request_ids[index]
            record_key = self._thinkers[request_id].request.record_key
            if record_key is not None:
                found.append((index, ThoughtOwner(record_key, request_id, rows.steps[index])))
        return found
