"""The thought passes in vLLM's V1 model runner, for CUDA and the CPU alike.

vLLM prepares a batch, runs the trunk and samples. A thought pass is a row of that batch whose
place, input and outcome differ, in five places:

    execute_model    runs the further passes of a burst, most of them without vLLM's preparations
                     (`plain`)
    _prepare_inputs  the row lies behind its text token, and is fed a thought token or a meta-token
    _model_forward   a first pass keeps the base hidden state; a last one mixes it with the thought
    sample_tokens    the row's logits say a thought token, kept here, unless the thought is done;
                     then they are vLLM's, and what is said is noted beside the thought, for those
                     who asked
    _update_states   requests that finished or were preempted leave nothing behind

Shapes: N tokens of the batch, R thinking rows, L of them last passes, F = R + L tokens they feed
beside x_p, W wanted thoughts, H hidden, V vocabulary, S slots and C columns of the memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import CompilationMode, VllmConfig
from vllm.sequence import IntermediateTensors
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput, SamplerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from quietstar_infer.params import ThoughtParams
from quietstar_infer.sampling import seed_from_text
from quietstar_infer.vllm_plugin.thought_sampler import Choice, Fed, bits_of, unpack, upload
from quietstar_infer.vllm_plugin.forced_tokens import ForcedTokens
from quietstar_infer.vllm_plugin.slots import ThoughtMemory
from quietstar_infer.vllm_plugin.metrics import ThoughtMetrics
from quietstar_infer.vllm_plugin.model import QuietStarMixin
from quietstar_infer.vllm_plugin.options import thinking_setup
from quietstar_infer.vllm_plugin.multi_step import PlainPassesMixin
from quietstar_infer.vllm_plugin.thought_log import Owner, Recording, ThoughtRecords
from quietstar_infer.vllm_plugin.thought_rows import ThinkingRows, collect_rows, shifts, text_positions
from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan, attached_thoughts, later_pass, note_passes

if TYPE_CHECKING:
    _Runner = GPUModelRunner
else:
    _Runner = object


class Thinker(NamedTuple):
    """What the runner has to know about a request that thinks."""

    seed: int
    temperature: float
    temperature_bits: int
    record_key: str | None
    forced_tokens: tuple[int, ...]


class Thinking(NamedTuple):
    """The thinking rows of the batch being run; where their text tokens are, (R,); and on the
    device what they feed, (F, 7): those of `rows` in order, then END's of the last passes.
    """

    rows: ThinkingRows
    position_R: npt.NDArray[np.int64]
    packed_F7: torch.Tensor
    fed: Fed


class ThinkingRunnerMixin(PlainPassesMixin, _Runner):
    """What turns a model runner of vLLM's into one that thinks. The runner's class follows it in
    the bases.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        setup = thinking_setup(vllm_config)
        dtype = self.model_config.dtype
        assert isinstance(dtype, torch.dtype), "vLLM has resolved it by now"
        self._limits = setup.limits
        self._thinkers: dict[str, Thinker] = {}
        self._thinking: Thinking | None = None
        self._recording: Recording | None = None
        self.thought_metrics = ThoughtMetrics(device)
        self.thought_records = ThoughtRecords(setup.max_recorded_thought_tokens)
        self.thought_memory = ThoughtMemory(
            num_slots=self.max_num_reqs,
            max_budget=setup.limits.max_budget,
            meta_token_ids=setup.config.meta_token_ids,
            hidden_size=self.model_config.get_hidden_size(),
            dtype=dtype,
            device=device,
        )
        # Somebody waits for the engine: the burst is to end after this pass.
        self.is_interrupted = False
        self._forced = ForcedTokens(device)
        # Not vLLM's option for custom processors: with that, every step would wait for the tokens
        # that have been sampled.
        self.input_batch.logitsprocs.non_argmax_invariant.append(self._forced)
        self._choose = Choice(is_compiled=self.compilation_config.mode != CompilationMode.NONE)
        if device.type == "cuda" and self.prepare_inputs_event is None:
            # By this vLLM waits for its uploads before it prepares the next inputs. Without
            # asynchronous scheduling it needs no such event, because it waits for every pass; a
            # burst does not.
            self.prepare_inputs_event = torch.cuda.Event(blocking=True)

    @torch.inference_mode()
    def execute_model(
        self,
        scheduler_output: SchedulerOutput,
        intermediate_tensors: IntermediateTensors | None = None,
    ) -> Any:
        """The passes of one engine step, one or all of a burst; and, as long as nobody has to wait
        for a grammar, what is said in it, which vLLM would ask for in a second call.
        """
        result = self._run_passes(scheduler_output, intermediate_tensors)
        if (
            result is None
            and not self.use_async_scheduling
            and not scheduler_output.has_structured_output_requests
        ):
            return self.sample_tokens(None)
        return result

    def _run_passes(
        self, scheduler_output: SchedulerOutput, intermediate_tensors: IntermediateTensors | None
    ) -> Any:
        """In a burst all passes but the first and the last are plain. Where the last is, too, or is
        not reached, nobody speaks, and there is nothing for vLLM to sample.
        """
        plan = attached_thoughts(scheduler_output)
        num_rows = len(scheduler_output.num_scheduled_tokens)
        self.thought_metrics.count_pass(scheduler_output.num_scheduled_tokens, plan)
        begins_plain = self._is_plain(plan, num_rows, 0)
        ends_plain = self._is_plain(plan, num_rows, plan.num_passes - 1)
        # Asynchronous scheduling asks for samples after every step.
        ends_plain = ends_plain and not self.use_async_scheduling
        if begins_plain and (ends_plain or plan.num_passes > 1):
            self._update_states(scheduler_output)
            done = 0
        else:
            result = super().execute_model(scheduler_output, intermediate_tensors)
            if plan.num_passes == 1:
                return result
            self._end_inner_pass()
            done = 1

        num_plain = plan.num_passes - done - (0 if ends_plain else 1)
        num_run = done + self._run_plain_passes(plan, done, num_plain)
        self.thought_metrics.count_plain_passes(num_rows, num_run - 1)
        if ends_plain or num_run < done + num_plain:
            return note_passes(self._nothing_said(), num_run)
        last = later_pass(scheduler_output, plan.num_passes - 1)
        self.thought_metrics.count_pass(last.num_scheduled_tokens, attached_thoughts(last))
        return super().execute_model(last)

    def _is_plain(self, plan: ThoughtPlan, num_rows: int, number: int) -> bool:
        """Whether every row of a batch feeds one thought token and chooses the next, so many passes
        from now.
        """
        return (
            0 < num_rows == len(plan.steps)
            and all(step.is_plain_after(number) for step in plan.steps.values())
            # With LoRA, vLLM's own preparations tell the kernels which tokens are whose.
            and self.lora_config is None
        )

    def _end_inner_pass(self) -> None:
        """What lies between two passes of a burst: each row chooses its next thought token."""
        assert self._thinking is not None, "all rows of a burst think"
        assert self.execute_model_state is not None, "the pass has run"
        self._think_on(self._thinking, self.execute_model_state.logits)
        self.execute_model_state = None
        # As vLLM's scheduler would have said: x_p is the next token to compute.
        rows = self._thinking.rows
        self.input_batch.num_computed_tokens_cpu[rows.row_R] = self._thinking.position_R

    def _nothing_said(self) -> ModelRunnerOutput:
        """The outcome of a step in which every row stays in mid-thought."""
        batch = self.input_batch
        return ModelRunnerOutput(batch.req_ids.copy(), batch.req_id_to_index.copy())

    def _update_states(self, scheduler_output: SchedulerOutput) -> Any:
        for request_id in scheduler_output.preempted_req_ids or ():
            self.thought_memory.release(request_id)
        for request_id in scheduler_output.finished_req_ids:
            self.thought_memory.release(request_id)
            self._thinkers.pop(request_id, None)
        return super()._update_states(scheduler_output)

    # --- plain passes

    def _run_plain_passes(self, plan: ThoughtPlan, first: int, number: int) -> int:
        """Run so many passes of a burst, from its `first` on, or fewer, if it is interrupted.
        Returns how many. x_p is every row's next token to compute, by vLLM's count.
        """
        if number == 0:
            return 0
        self._thinking = None
        request_ids = self.input_batch.req_ids
        num_rows = len(request_ids)
        phases = [plan.steps[request_id].phase + first for request_id in request_ids]
        position_R = self.input_batch.num_computed_tokens_cpu[:num_rows].astype(np.int64)
        row_R = self.arange_np[:num_rows]
        packed_R7 = upload(self._fed(request_ids, row_R, row_R, phases, position_R), self.device)
        fed = unpack(packed_R7)
        is_greedy = self._are_greedy(request_ids)

        token_SC = self.thought_memory.token_SC
        # x_p, START and the thought tokens before this one lie before it.
        fed_position_R = position_R + 1 + np.array(phases)
        graph = self._begin_plain_passes(fed_position_R, token_SC[fed.slot, fed.column])
        for index in range(number):
            hidden_RH = self._plain_forward(num_rows, graph)
            logits_RV = self._quiet_model.compute_logits(hidden_RH)
            assert logits_RV is not None, "every rank has all logits"
            token_R = self._choose(logits_RV, packed_R7, token_SC, is_greedy)
            if index + 1 == number or self.is_interrupted:
                break
            self._advance_plain_passes(token_R)
            fed.column.add_(1)
        self.is_interrupted = False
        return index + 1

    # --- before the trunk

    def _prepare_inputs(
        self, scheduler_output: SchedulerOutput, num_scheduled_tokens: npt.NDArray[np.int32]
    ) -> Any:
        steps = attached_thoughts(scheduler_output).steps
        if not steps:
            self._thinking = None
            return super()._prepare_inputs(scheduler_output, num_scheduled_tokens)

        rows = collect_rows(steps, self.input_batch.req_id_to_index)
        num_computed = self.input_batch.num_computed_tokens_cpu
        position_R = text_positions(rows, num_computed, num_scheduled_tokens)
        # From this count vLLM derives position, sequence length and KV slot. It writes the count
        # anew every step.
        num_computed[rows.row_R] += shifts(rows)
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)

        self._thinking = self._feed(rows, position_R)
        self._discard_samples(rows)
        return prepared

    def _feed(self, rows: ThinkingRows, position_R: npt.NDArray[np.int64]) -> Thinking:
        """Put START, thought tokens and END in place of what vLLM read behind the text."""
        starts = self.query_start_loc.np
        place_R = starts[rows.row_R]
        # START rides behind x_p, and that may be the end of a whole prompt.
        place_R[rows.first] = starts[rows.row_R[rows.first] + 1] - 1
        phases = [step.phase for step in rows.steps]
        fed = self._fed(rows.request_ids, rows.row_R, place_R, phases, position_R)
        end = self.thought_memory.end_column
        fed += [each._replace(place=each.place + 1, column=end) for each in fed[rows.last]]

        packed_F7 = upload(fed, self.device)
        thinking = Thinking(rows, position_R, packed_F7, unpack(packed_F7))
        input_N = self.input_ids.gpu
        self._restore_text_tokens(thinking, input_N)
        memory_F = thinking.fed.slot, thinking.fed.column
        input_N[thinking.fed.place] = self.thought_memory.token_SC[memory_F]
        return thinking

    def _fed(
        self,
        request_ids: list[str],
        row_R: npt.NDArray[Any],
        place_R: npt.NDArray[Any],
        phases: list[int],
        position_R: npt.NDArray[Any],
    ) -> list[Fed]:
        """The token of its own that each thought feeds in a pass."""
        fed = []
        where = zip(row_R.tolist(), place_R.tolist(), phases, position_R.tolist(), strict=True)
        for request_id, (row, place, phase, position) in zip(request_ids, where, strict=True):
            slot, thinker = self.thought_memory.acquire(request_id), self._thinker(request_id)
            fed.append(
                Fed(row, place, slot, phase, thinker.seed, position, thinker.temperature_bits)
            )
        return fed

    def _restore_text_tokens(self, thinking: Thinking, input_N: torch.Tensor) -> None:
        """Under asynchronous scheduling a text token just sampled is known on the device only. vLLM
        puts it at the row's end, where START rides: it belongs one place before.
        """
        sampled = self.input_batch.prev_sampled_token_ids
        if sampled is None:
            return
        rows = thinking.rows
        previous_R = self.prev_positions.np[rows.row_R[rows.first]]
        fresh = np.flatnonzero(previous_R >= 0)
        if fresh.size == 0:
            return
        indices = np.stack([fresh, previous_R[fresh]]).astype(np.int64)
        fresh_F, previous_F = async_tensor_h2d(indices, device=self.device).unbind()
        text_F = thinking.fed.place[fresh_F] - 1
        input_N[text_F] = sampled[previous_F, 0].to(input_N.dtype)

    def _discard_samples(self, rows: ThinkingRows) -> None:
        """What vLLM's sampler makes of a row in mid-thought is nobody's."""
        self.discard_request_mask.np[rows.row_R[rows.unfinished]] = True
        self.discard_request_mask.copy_to_gpu(self.input_batch.num_reqs)

    def _thinker(self, request_id: str) -> Thinker:
        thinker = self._thinkers.get(request_id)
        if thinker is None:
            sampling_params = self.requests[request_id].sampling_params
            assert sampling_params is not None
            params = ThoughtParams.from_mapping(sampling_params.extra_args, self._limits)
            seed = sampling_params.seed
            thinker = Thinker(
                seed=seed_from_text(request_id) if seed is None else seed,
                temperature=params.temperature,
                temperature_bits=bits_of(params.temperature),
                record_key=params.record_key,
                forced_tokens=params.forced_tokens,
            )
            self._thinkers[request_id] = thinker
        return thinker

    # --- the trunk

    def _model_forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden_NH = super()._model_forward(*args, **kwargs)
        if self._thinking is not None:
            if self._thinking.rows.num_first:
                self._keep_base(self._thinking, hidden_NH)
            if self._thinking.rows.num_last:
                self._mix(self._thinking, hidden_NH)
        return hidden_NH

    def _keep_base(self, thinking: Thinking, hidden_NH: torch.Tensor) -> None:
        first, fed = thinking.rows.first, thinking.fed
        self.thought_memory.base_SH[fed.slot[first]] = hidden_NH[fed.place[first] - 1]

    def _mix(self, thinking: Thinking, hidden_NH: torch.Tensor) -> None:
        """Put the mixed hidden state where END's was: the language-model head reads it there."""
        ends = slice(len(thinking.rows.steps), None)
        slot_L, place_L = thinking.fed.slot[ends], thinking.fed.place[ends]
        mixed_LH, weight_L1 = self._quiet_model.mix_thoughts(
            self.thought_memory.base_SH[slot_L], hidden_NH[place_L]
        )
        hidden_NH[place_L] = mixed_LH
        self.thought_metrics.add_weights(weight_L1)
        self._weight_L1 = weight_L1

    @property
    def _quiet_model(self) -> QuietStarMixin:
        model = self.get_model()
        assert isinstance(model, QuietStarMixin)
        return model

    # --- after the trunk

    # mypy takes vLLM's own decorator for the method.
    @torch.inference_mode()
    def sample_tokens(  # type: ignore[override]
        self, grammar_output: GrammarOutput | None
    ) -> Any:
        if self._thinking is not None and self.execute_model_state is not None:
            rows, logits_NV = self._thinking.rows, self.execute_model_state.logits
            self._think_on(self._thinking, logits_NV)
            self._force(rows)
            # Now, because grammar and sampler change the logits in place.
            self._recording = self._record(self._thinking, logits_NV)
            for request_id in rows.request_ids[rows.last]:
                self.thought_memory.release(request_id)
        with self._speaking_generators():
            return super().sample_tokens(grammar_output)  # type: ignore[type-var]

    def _sample(self, *args: Any, **kwargs: Any) -> SamplerOutput:
        sampled = super()._sample(*args, **kwargs)
        if self._recording is not None:
            self.thought_records.add(self._recording.finish(sampled.sampled_token_ids[:, 0]))
            self._recording = None
        return sampled

    def _record(self, thinking: Thinking, logits_NV: torch.Tensor) -> Recording | None:
        """What is to be kept of the thoughts that have ended. Who did not ask for them does not pay
        for it.
        """
        rows, fed = thinking.rows, thinking.fed
        owners, wanted = [], []
        for index, request_id in enumerate(rows.request_ids[rows.last]):
            record_key = self._thinkers[request_id].record_key
            if record_key is not None:
                owners.append(Owner(record_key, request_id, rows.steps[rows.last][index]))
                wanted.append(index)
        if not owners:
            return None
        wanted_W = async_tensor_h2d(wanted, device=self.device, dtype=torch.int64)
        slot_W = fed.slot[rows.last][wanted_W]
        row_W = fed.row[rows.last][wanted_W]
        base_WV = self._quiet_model.compute_logits(self.thought_memory.base_SH[slot_W])
        assert base_WV is not None, "every rank has all logits"
        logits_W2V = torch.stack([base_WV, logits_NV[row_W]], dim=1)
        return Recording(
            owners,
            row_W,
            self.thought_memory.token_SC[slot_W, 1:-1],
            self._weight_L1[wanted_W],
            logits_W2V.log_softmax(dim=-1, dtype=torch.float32),
        )

    def _think_on(self, thinking: Thinking, logits_NV: torch.Tensor) -> None:
        """Choose the next thought token of every unfinished thought. Here N counts batch rows."""
        going = thinking.rows.unfinished
        if going.stop > 0:
            self._choose(
                logits_NV,
                thinking.packed_F7[going],
                self.thought_memory.token_SC,
                self._are_greedy(thinking.rows.request_ids[going]),
            )

    def _are_greedy(self, request_ids: list[str]) -> bool:
        return not any(self._thinkers[request_id].temperature for request_id in request_ids)

    @torch.inference_mode()
    def warm_up_thoughts(self) -> None:
        """Have the choice of thought tokens compiled before a request waits for it."""
        memory = self.thought_memory
        vocab_size = self.model_config.get_vocab_size()
        self._choose.warm_up(vocab_size, memory.base_SH.dtype, memory.token_SC)

    def _force(self, rows: ThinkingRows) -> None:
        """Have the sampler give the tokens of rows that score a text."""
        last = rows.last
        forced = [
            (row, tokens[step.index])
            for request_id, row, step in zip(
                rows.request_ids[last], rows.row_R[last].tolist(), rows.steps[last], strict=True
            )
            if (tokens := self._thinkers[request_id].forced_tokens)
        ]
        self._forced.force([row for row, _ in forced], [token for _, token in forced])

    @contextmanager
    def _speaking_generators(self) -> Iterator[None]:
        """Hide the generators of rows whose sample is discarded: a seeded request draws once per
        visible token.

        vLLM draws for every row and winds a discarded row's generator back, which fails on the CPU
        (its generators have no offset). Can go when vLLM neither draws nor winds back there.
        """
        generators = self.input_batch.generators
        if not generators:
            yield
            return
        discarded = np.flatnonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])
        hidden = {row: generators.pop(row) for row in discarded.tolist() if row in generators}
        try:
            yield
        finally:
            generators.update(hidden)
