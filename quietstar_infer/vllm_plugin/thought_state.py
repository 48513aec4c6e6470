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

Where thought tokens are drafted, whole thoughts are run at once, pass by pass: `begin_drafted`,
then `next_drafted_pass` and `verify_drafts` for each, `end_drafted`; what follows the last is as
above.

With pipeline parallelism, all from `process_hidden_states` on is done on the last stage alone; the
other stages call `release` in its place.

Between two passes a thought consists of what its slot holds (`slots`).

Shapes: N tokens of the batch (of logits: rows), R thinking rows, G of them in their gate pass and L
in their last pass, F places: of what they feed beside x_p, and, in gate passes, of x_p; U rows that
sample a thought token, W thoughts to be logged, H hidden, V vocabulary.
"""

from collections.abc import Iterable, Mapping
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
from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThinkingRequest, ThoughtStep
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.speculation.drafted import DraftedPass, DraftedThoughts
from quietstar_infer.vllm_plugin.speculation.speculator import ThoughtSpeculator
from quietstar_infer.vllm_plugin.thought_log import ThoughtLog, ThoughtOwner, UnsampledThoughts
from quietstar_infer.vllm_plugin.thought_rows import ThoughtRows, collect_rows, fed_places
from quietstar_infer.vllm_plugin.thought_sampler import (
    ThoughtInputs,
    ThoughtSampler,
    bits_of,
    unpack,
    upload,
)


class ThoughtBatch(NamedTuple):
    """The thoughts of one pass.

    `fed`: what they feed, of `rows` in order, then the ENDs; `packed_F8` is the same on the device,
    and `inputs` are its columns. `continuing`: the batch's rows whose thoughts go on, where drafts
    have brought those in `rows` to their end. `is_learning`: tokens are drafted, from what is
    sampled now. `weight_L1`: the mixing weights, once known. Of gate passes, once known: `gain_G`,
    what a thought is expected to save, by the checkpoint's gate; `thinks_G`, what was decided.
    """

    rows: ThoughtRows
    fed: list[ThoughtInputs]
    packed_F8: torch.Tensor
    inputs: ThoughtInputs
    is_learning: bool = False
    continuing: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    weight_L1: torch.Tensor | None = None
    gain_G: torch.Tensor | None = None
    thinks_G: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    @property
    def beginning(self) -> npt.NDArray[np.int64]:
        """The batch's rows in which, in their gate pass, a thought was decided for."""
        return self.rows.row_R[self.rows.gates][self.thinks_G]

    @property
    def num_begun(self) -> int:
        """In how many gate passes a thought was decided for."""
        return int(np.count_nonzero(self.thinks_G))

    @property
    def num_visible(self) -> int:
        """How many of the thinking rows sample a visible token in this pass."""
        return self.rows.num_last + self.rows.num_gates - self.num_begun

    @property
    def num_thinking(self) -> int:
        """How many of the batch's rows think, or were about to."""
        return len(self.rows.steps) + len(self.continuing)

    @property
    def skipped(self) -> list[int]:
        """Which of `rows` are gate passes in which it was decided against."""
        return [index for index, thinks in enumerate(self.thinks_G.tolist()) if not thinks]


class DecodeBatch(NamedTuple):
    """The thoughts of a decode-only pass: in every row of the batch one feeds a thought token and
    samples the next. `packed_R8` is on the device, `inputs` are its columns.
    """

    packed_R8: torch.Tensor
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
        self._gate = None if model.thought_gate is None else model.thought_gate.tensors
        self._device = device
        self._vocab_size = vllm_config.model_config.get_vocab_size()
        self._thinkers: dict[str, _Thinker] = {}
        # Those of them whose thoughts are logged, whose visible tokens are forced, and one of whose
        # thoughts is given: mostly none.
        self._logged_ids: set[str] = set()
        self._forced_ids: set[str] = set()
        self._given_ids: set[str] = set()
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
        self._is_compiled = compilation.mode != CompilationMode.NONE
        self.sampler = ThoughtSampler(self._is_compiled)
        self.sample_check = SampleCheck(setup.config.meta_token_ids)
        self.forced_tokens = ForcedTokens(device)
        self.log = ThoughtLog(setup.max_recorded_thought_tokens)
        self.metrics = ThoughtMetrics(device)
        self.speculator = (
            ThoughtSpeculator(
                self.slots,
                self.sampler,
                self.metrics,
                self._vocab_size,
                vllm_config.scheduler_config.max_num_batched_tokens,
                device,
            )
            if setup.speculative_thoughts
            else None
        )

    def warm_up(self) -> None:
        """Have what is done with thoughts in every pass, and what drafts them, compiled before a
        request waits for it.
        """
        self.sampler.warm_up(self._vocab_size, self.slots.base_SH.dtype, self.slots.token_SC)
        if self._is_compiled:
            self.slots.warm_up(self._gate)
        if self.speculator is not None:
            self.speculator.warm_up()

    # --- requests

    def add_request(self, request_id: str, request: ThinkingRequest) -> None:
        """A request that thinks is scheduled for the first time."""
        self._thinkers[request_id] = _Thinker(request, bits_of(request.temperature))
        if request.record_key is not None:
            self._logged_ids.add(request_id)
        if request.forced_tokens:
            self._forced_ids.add(request_id)
        if request.first_thought:
            self._given_ids.add(request_id)

    def drop_thought(self, request_id: str) -> None:
        """A request is preempted; if it was in mid-thought, it will think that thought again."""
        self.slots.release(request_id)

    def remove_request(self, request_id: str) -> None:
        """A request, thinking or not, has ended."""
        self.drop_thought(request_id)
        self._thinkers.pop(request_id, None)
        for ids in (self._logged_ids, self._forced_ids, self._given_ids):
            ids.discard(request_id)

    # --- one pass

    def prepare_inputs(
        self,
        rows: ThoughtRows,
        position_R: npt.NDArray[np.int64],
        query_start_loc: npt.NDArray[np.int32],
        input_N: torch.Tensor,
        fed_tokens: Mapping[str, int] | None = None,
        *,
        is_learning: bool = False,
    ) -> ThoughtBatch:
        """Write START, thought tokens and END into the batch's input tokens, in their places.

        `position_R`: where the text tokens that the thoughts are about lie in their requests.
        `query_start_loc` is where each row of the batch begins among its tokens, and at last where
        all end. `fed_tokens`: see `ThoughtPlan`; `is_learning`: see `ThoughtBatch`.
        """
        if self._given_ids:
            self._give_thoughts(rows.request_ids, rows.steps)
        place_R = fed_places(rows, query_start_loc)
        fed = self._judged(rows, place_R)
        if rows.num_gates < len(rows.steps):
            thinking = slice(rows.num_gates, len(rows.steps))
            phases = [step.phase for step in rows.steps[thinking]]
            fed += self._fed(
                rows.request_ids[thinking],
                rows.row_R[thinking],
                place_R[thinking],
                phases,
                position_R[thinking],
            )
        if fed_tokens:
            self._keep(fed, [fed_tokens.get(request_id) for request_id in rows.request_ids])
        fed += self._ends(fed[rows.last])
        packed_F8 = upload(fed, self._device)
        if rows.num_gates < len(fed):
            self.slots.feed(input_N, packed_F8[rows.fed])
        return ThoughtBatch(rows, fed, packed_F8, unpack(packed_F8), is_learning)

    def process_hidden_states(self, batch: ThoughtBatch, hidden_NH: torch.Tensor) -> ThoughtBatch:
        """Gate and first passes: keep the base hidden state, x_p's. Last passes: put the mixed
        hidden state in the place of END's, which the language-model head reads.
        """
        rows, inputs = batch.rows, batch.inputs
        if rows.num_gates and self._gate is not None:
            gain_G = self.slots.judge(hidden_NH, batch.packed_F8[rows.gates], self._gate)
            batch = batch._replace(gain_G=gain_G)
        elif rows.num_gates:
            slot, place = inputs.slot[rows.gates], inputs.place[rows.gates]
            self.slots.base_SH[slot] = hidden_NH[place]
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
        if not rows.num_gates:
            return batch
        gain_G = batch.gain_G
        if gain_G is None:
            row_G, slot_G, budget_G = (
                column_F[rows.gates]
                for column_F in (batch.inputs.row, batch.inputs.slot, batch.inputs.column)
            )
            base_GH = self.slots.base_SH[slot_G]
            gain_G = self._model.expected_gain(base_GH, logits_NV[row_G], budget_G)
        gains: list[float] = gain_G.tolist()
        judged = zip(gains, rows.request_ids[rows.gates], rows.steps[rows.gates], strict=True)
        thinks = [gain > self._threshold(request_id, step) for gain, request_id, step in judged]
        self.metrics.add_decisions(gains, sum(thinks))
        return batch._replace(thinks_G=np.array(thinks))

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
            packed_U8 = batch.packed_F8[unfinished]
            self.sampler(logits_NV, packed_U8, self.slots.token_SC, is_greedy)
            if batch.is_learning:
                self._speculator.learn(batch.fed[unfinished], logits_NV)
        self._force_tokens(rows)
        unsampled = self._to_be_logged(batch, logits_NV) if self._logged_ids else None
        skipped = [rows.request_ids[index] for index in batch.skipped]
        for request_id in (*skipped, *rows.request_ids[rows.last]):
            self.slots.release(request_id)
        return unsampled

    def process_samples(self, unsampled: UnsampledThoughts, sampled_N: torch.Tensor) -> None:
        """Log thoughts, now that the visible tokens of the batch's rows are sampled, (N,)."""
        finished = unsampled.finish(sampled_N)
        self.metrics.add_gain_errors(finished.gain_errors)
        self.log.add(finished)

    # --- pipeline parallelism

    def release(self, batch: ThoughtBatch) -> None:
        """Forget a pass, on a stage before the last: what the thoughts feed next comes with it."""
        for request_id in batch.rows.request_ids:
            self.slots.release(request_id)

    def sampled_tokens(self, batch: ThoughtBatch) -> dict[str, int]:
        """The thought tokens sampled in a pass, by request id; waits for the device."""
        group = batch.rows.unfinished
        slot_U, column_U = batch.inputs.slot[group], batch.inputs.column[group]
        tokens = self.slots.token_SC[slot_U, column_U + 1].tolist()
        return dict(zip(batch.rows.request_ids[group], tokens, strict=True))

    def _keep(self, fed: list[ThoughtInputs], tokens: list[int | None]) -> None:
        """Put what thoughts feed into their slots, where it is not None."""
        cells = [
            (each.slot, each.column, token)
            for each, token in zip(fed, tokens, strict=True)
            if token is not None
        ]
        cell_3K = async_tensor_h2d(np.array(cells, dtype=np.int64).T, device=self._device)
        slot_K, column_K, token_K = cell_3K.unbind()
        self.slots.token_SC[slot_K, column_K] = token_K.to(self.slots.token_SC.dtype)

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
        packed_R8 = upload(fed, self._device)
        return DecodeBatch(packed_R8, unpack(packed_R8), self._are_greedy(request_ids))

    def fed_tokens(self, batch: DecodeBatch) -> torch.Tensor:
        """The thought tokens that the pass feeds, (R,)."""
        return self.slots.token_SC[batch.inputs.slot, batch.inputs.column]

    def decode(self, batch: DecodeBatch, hidden_RH: torch.Tensor) -> torch.Tensor:
        """Sample the next thought tokens, (R,), from what the model made of the fed ones."""
        logits_RV = self._model.compute_logits(hidden_RH)
        assert logits_RV is not None, "every rank has all logits"
        return self.sampler(logits_RV, batch.packed_R8, self.slots.token_SC, batch.is_greedy)

    def advance(self, batch: DecodeBatch) -> None:
        """On the device, make the batch that of the next pass."""
        batch.inputs.column.add_(1)

    # --- drafts

    @property
    def _speculator(self) -> ThoughtSpeculator:
        assert self.speculator is not None, "drafts were asked for"
        return self.speculator

    def begin_drafted(
        self,
        request_ids: list[str],
        steps: list[ThoughtStep],
        position_R: npt.NDArray[np.int64],
        text_tokens: list[int],
        drafting: Drafting,
    ) -> DraftedThoughts:
        """Begin to run the thoughts of a whole batch, row by row, from these passes on, about the
        text tokens at these positions; `text_tokens` are these, where they are still to be fed,
        else -1.
        """
        if self._given_ids:
            self._give_thoughts(request_ids, steps)
        rows = np.arange(len(steps))
        fed = self._fed(request_ids, rows, rows, [step.phase for step in steps], position_R)
        temperatures = [self._thinkers[each].request.temperature for each in request_ids]
        hidden_RH = torch.zeros_like(self.slots.base_SH[: len(steps)])
        return DraftedThoughts(
            request_ids, steps, fed, temperatures, text_tokens, drafting, hidden_RH
        )

    def next_drafted_pass(self, thoughts: DraftedThoughts) -> DraftedPass:
        """What the thoughts that have not ended feed next."""
        return self._speculator.next_pass(thoughts)

    def verify_drafts(
        self, thoughts: DraftedThoughts, laid_out: DraftedPass, hidden_NH: torch.Tensor
    ) -> None:
        """Find out, from what the model made of such a pass, how far each thought has got."""
        self._speculator.verify(thoughts, laid_out, hidden_NH, self._model.compute_logits)

    def end_drafted(self, thoughts: DraftedThoughts) -> ThoughtBatch:
        """The thoughts that have ended, as in a last pass whose tokens are `hidden_RH`'s rows: the
        mixed hidden states are put into these.
        """
        request_ids, steps, last = thoughts.ended()
        rows = collect_rows(
            dict(zip(request_ids, steps, strict=True)),
            {request_id: each.row for request_id, each in zip(request_ids, last, strict=True)},
        )
        fed = last + self._ends(last)
        packed_F8 = upload(fed, self._device)
        continuing = np.flatnonzero(~thoughts.has_ended_R)
        batch = ThoughtBatch(rows, fed, packed_F8, unpack(packed_F8), continuing=continuing)
        return self.process_hidden_states(batch, thoughts.hidden_RH)

    # --- parts

    def _judged(self, rows: ThoughtRows, place_R: npt.NDArray[np.int64]) -> list[ThoughtInputs]:
        """The last text tokens of those that are in their gate pass, behind which nothing is fed
        yet.
        """
        gates = rows.gates
        where = zip(
            rows.request_ids[gates],
            rows.steps[gates],
            rows.row_R[gates].tolist(),
            place_R[gates].tolist(),
            strict=True,
        )
        return [
            ThoughtInputs(row, place, self.slots.acquire(request_id), step.budget, 0, 0, 0)
            for request_id, step, row, place in where
        ]

    def _ends(self, last: list[ThoughtInputs]) -> list[ThoughtInputs]:
        """The ENDs behind the last thought tokens."""
        end = self.slots.end_column
        return [each._replace(place=each.place + 1, column=end) for each in last]

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
            given = self.slots.num_given(slot)
            fed.append(ThoughtInputs(row, place, slot, phase, request.seed, position, bits, given))
        return fed

    def _give_thoughts(self, request_ids: list[str], steps: list[ThoughtStep]) -> None:
        """Put the given ones of the thoughts that begin, or may, with a pass into their slots."""
        for request_id, step in zip(request_ids, steps, strict=True):
            if step.index or not (step.is_gate or step.is_first):
                continue
            if given := self._thinkers[request_id].request.given(step):
                self.slots.give(request_id, given)

    def _threshold(self, request_id: str, step: ThoughtStep) -> float:
        """What a thought must be expected to save, in nats; a given one need not save anything."""
        request = self._thinkers[request_id].request
        return -np.inf if request.given(step) else request.threshold

    def _are_greedy(self, request_ids: list[str]) -> bool:
        return not any(self._thinkers[request_id].request.temperature for request_id in request_ids)

    def _force_tokens(self, rows: ThoughtRows) -> None:
        """Have vLLM's sampler yield the given tokens of requests that score a text."""
        if not self._forced_ids:
            self.forced_tokens.force((), ())
            return
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
