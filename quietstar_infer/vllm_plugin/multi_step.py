"""Multi-step: several passes in one engine step, where every row of the batch is thinking.

The scheduler asks for it (`ThoughtPlan`). With drafts, passes are run until the thoughts have
ended; vLLM prepares only the first, and only if it feeds a prompt. Without drafts, the scheduler
says how many passes (`num_passes`). Of these, only the first and the last can contain START, END or
a visible token; vLLM prepares these. All between are *decode-only*: every row feeds one thought
token and samples the next. From one to the next, positions and sequence lengths grow by one and the
sampled tokens become the fed ones, all on the device.

Of what vLLM prepares for a batch, only positions, lengths and attention metadata have to be made
anew for a pass that follows another. This module alone does so.

Shapes: R rows of the batch, H hidden.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.sequence import IntermediateTensors
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.gpu_model_runner import ExecuteModelState

from quietstar_infer.vllm_plugin.runner import ThinkingRunnerMixin
from quietstar_infer.vllm_plugin.schedule_plan import (
    Drafting,
    ThoughtPlan,
    ThoughtStep,
    attach_passes_run,
    attached_plan,
    later_pass,
)
from quietstar_infer.vllm_plugin.speculation.drafted import DraftedThoughts
from quietstar_infer.vllm_plugin.speculation.progress import ThoughtProgress
from quietstar_infer.vllm_plugin.thought_state import DecodeBatch


class StepPasses(NamedTuple):
    """The passes of an engine step, in order: one that vLLM prepares, if there is one before the
    decode-only ones; those; one that vLLM prepares, if the last is not decode-only.
    """

    has_first: bool
    num_decode_only: int
    has_last: bool


def split_passes(plan: ThoughtPlan, num_rows: int, is_ahead: bool) -> StepPasses:
    """Which passes of an engine step with `num_rows` rows are decode-only.

    Where vLLM is ahead with scheduling, it asks for the samples of every engine step, so its last
    pass must be one that vLLM prepares.
    """
    last = plan.num_passes - 1
    begins_with_decode = _is_decode_only(plan, num_rows, 0)
    ends_with_decode = _is_decode_only(plan, num_rows, last) and not is_ahead
    has_first = plan.num_passes > 1 and not begins_with_decode
    has_last = not ends_with_decode
    return StepPasses(has_first, plan.num_passes - has_first - has_last, has_last)


def _is_decode_only(plan: ThoughtPlan, num_rows: int, number: int) -> bool:
    """Whether the pass that comes `number` passes after the first is decode-only."""
    return 0 < num_rows == len(plan.steps) and all(
        step.is_decode_only_after(number) for step in plan.steps.values()
    )


def _feed_prompts(scheduler_output: SchedulerOutput, steps: Mapping[str, ThoughtStep]) -> bool:
    """Whether a row feeds more of its text than x_p: then vLLM has to prepare the pass."""
    return any(
        scheduler_output.num_scheduled_tokens[request_id] > 1 + step.num_extra_tokens
        for request_id, step in steps.items()
    )


class PassGraph(NamedTuple):
    """CUDA graph mode and batch descriptor of a pass."""

    mode: CUDAGraphMode
    batch: BatchDescriptor
    tokens_across_ranks: torch.Tensor | None


class MultiStepMixin(ThinkingRunnerMixin):
    """A model runner that thinks, with several passes per engine step."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        # A request waits for the engine: the multi-step is to end after the pass being run.
        self.is_interrupted = False
        if device.type == "cuda" and self.prepare_inputs_event is None:
            # By this event vLLM waits for its uploads before it prepares the next inputs. Without
            # asynchronous scheduling it has none, because it waits for every pass; a multi-step
            # does not.
            self.prepare_inputs_event = torch.cuda.Event(blocking=True)

    def _run_passes(
        self,
        scheduler_output: SchedulerOutput,
        intermediate_tensors: IntermediateTensors | None = None,
    ) -> Any:
        """Run the passes of an engine step, or fewer, if it is interrupted. Where the last is
        decode-only or is not reached, no row has anything for vLLM to sample.
        """
        plan = attached_plan(scheduler_output)
        num_rows = len(scheduler_output.num_scheduled_tokens)
        if plan.drafting is not None:
            return self._run_with_drafts(scheduler_output, plan, plan.drafting)
        passes = split_passes(plan, num_rows, self._is_ahead)
        if passes == StepPasses(has_first=False, num_decode_only=0, has_last=True):
            return super()._run_passes(scheduler_output, intermediate_tensors)

        metrics = self.thought_state.metrics
        if passes.has_first:
            super()._run_passes(scheduler_output, intermediate_tensors)
            self._end_first_pass()
        else:
            metrics.count_pass(scheduler_output.num_scheduled_tokens, plan)
            self._update_states(scheduler_output)
        num_run = int(passes.has_first)
        num_run += self._run_decode_only_passes(plan, num_run, passes.num_decode_only)
        metrics.count_decode_only_passes(num_rows, num_run - 1)
        if passes.has_last and num_run == plan.num_passes - 1:
            return super()._run_passes(later_pass(scheduler_output, num_run))
        return attach_passes_run(self._no_samples(), num_run)

    def _end_first_pass(self) -> None:
        """Sample thought tokens behind a pass that vLLM has prepared and another one follows."""
        assert self._thoughts is not None, "all rows of a multi-step think"
        assert self.execute_model_state is not None, "the pass has run"
        self.thought_state.process_logits(self._thoughts, self.execute_model_state.logits)
        self.execute_model_state = None
        # As if vLLM's scheduler had set it: x_p is the next token to compute.
        rows = self._thoughts.rows
        position = [each.position for each in self._thoughts.fed[: len(rows.steps)]]
        self.input_batch.num_computed_tokens_cpu[rows.row_R] = position

    # --- passes with drafts

    def _run_with_drafts(
        self, scheduler_output: SchedulerOutput, plan: ThoughtPlan, drafting: Drafting
    ) -> None:
        """Run passes until the thoughts have ended, or a request interrupts them. The last of them
        is left to be sampled, as by vLLM's `execute_model`.
        """
        steps, num_passes, num_tokens = plan.steps, 0, 0
        if _feed_prompts(scheduler_output, steps):
            super()._run_passes(scheduler_output)
            num_passes, num_tokens = 1, scheduler_output.total_num_scheduled_tokens
            if self.is_interrupted or any(step.is_last for step in steps.values()):
                reached = {request_id: step.phase for request_id, step in steps.items()}
                return self._end_drafts(ThoughtProgress(reached, num_passes, num_tokens))
            self._end_first_pass()
            steps = {request_id: step.next() for request_id, step in steps.items()}
        else:
            self.thought_state.metrics.count_aborted(plan.aborted)
            self._update_states(scheduler_output)
        thoughts = self._begin_drafted(steps, drafting)
        while True:
            self._run_drafted_pass(thoughts)
            if self.is_interrupted or not thoughts.goes_on():
                break
        self._leave_to_be_sampled(scheduler_output, thoughts)
        num_passes, num_tokens = num_passes + thoughts.num_passes, num_tokens + thoughts.num_tokens
        self._end_drafts(ThoughtProgress(thoughts.reached(), num_passes, num_tokens))

    def _end_drafts(self, progress: ThoughtProgress) -> None:
        self.is_interrupted = False
        self._progress = progress

    def _begin_drafted(
        self, steps: Mapping[str, ThoughtStep], drafting: Drafting
    ) -> DraftedThoughts:
        batch = self.input_batch
        in_order = [steps[request_id] for request_id in batch.req_ids]
        # By vLLM's count, x_p is every row's next token to compute.
        position_R = batch.num_computed_tokens_cpu[: len(in_order)].astype(np.int64)
        text_tokens = [
            int(batch.token_ids_cpu[row, position]) if step.is_first else -1
            for row, (step, position) in enumerate(zip(in_order, position_R, strict=True))
        ]
        return self.thought_state.begin_drafted(
            batch.req_ids, in_order, position_R, text_tokens, drafting
        )

    def _run_drafted_pass(self, thoughts: DraftedThoughts) -> None:
        laid_out = self.thought_state.next_drafted_pass(thoughts)
        graph = self._prepare_pass(laid_out.start_R, laid_out.length_R, laid_out.position_N)
        token_N = async_tensor_h2d(laid_out.token_N, device=self.device)
        self.input_ids.gpu[: len(token_N)] = token_N
        # What thinks is known to the loop, not to the forward pass.
        self._thoughts = None
        hidden_NH = self._forward(laid_out.length_R, graph)
        self.thought_state.verify_drafts(thoughts, laid_out, hidden_NH)

    def _leave_to_be_sampled(
        self, scheduler_output: SchedulerOutput, thoughts: DraftedThoughts
    ) -> None:
        """Leave the state that vLLM's sampling of an engine step finds after its forward pass."""
        self._thoughts = self.thought_state.end_drafted(thoughts)
        hidden_RH = thoughts.hidden_RH
        # Those of rows whose thought has not ended are discarded.
        any_ended = len(self._thoughts.rows.steps) > 0
        model: Any = self.get_model()
        logits_RV = model.compute_logits(hidden_RH) if any_ended else hidden_RH[:0]
        self.execute_model_state = ExecuteModelState(
            scheduler_output, logits_RV, None, None, hidden_RH, hidden_RH, None, None, None, None
        )
        self.discard_request_mask.np[: len(hidden_RH)] = False
        self._decided = self._decide()

    # --- decode-only passes

    def _run_decode_only_passes(self, plan: ThoughtPlan, first: int, number: int) -> int:
        """Run `number` decode-only passes, which come `first` passes after the plan's, or fewer, if
        interrupted. Returns how many.
        """
        if number == 0:
            return 0
        self._thoughts = None
        request_ids = self.input_batch.req_ids
        num_rows = len(request_ids)
        phases = [plan.steps[request_id].phase + first for request_id in request_ids]
        # By vLLM's count, x_p is every row's next token to compute.
        position_R = self.input_batch.num_computed_tokens_cpu[:num_rows].astype(np.int64)
        batch = self.thought_state.prepare_decode(
            request_ids, self.arange_np[:num_rows], phases, position_R
        )
        # The fed token lies behind x_p, START and the thought tokens before it.
        fed_position_R = position_R + 1 + np.array(phases)
        token_R = self.thought_state.fed_tokens(batch)
        graph = self._prepare_pass(fed_position_R, np.ones_like(fed_position_R), fed_position_R)
        self.input_ids.gpu[:num_rows] = token_R
        return self._loop(batch, graph, num_rows, number)

    def _loop(self, batch: DecodeBatch, graph: PassGraph, num_rows: int, number: int) -> int:
        """Run prepared passes until `number` of them are run or a request interrupts them."""
        length_R = np.ones(num_rows, dtype=np.int64)
        for index in range(number):
            hidden_RH = self._forward(length_R, graph)
            token_R = self.thought_state.decode(batch, hidden_RH)
            if index + 1 == number or self.is_interrupted:
                break
            self._advance_decode_only_pass(token_R)
            self.thought_state.advance(batch)
        self.is_interrupted = False
        return index + 1

    def _advance_decode_only_pass(self, token_R: torch.Tensor) -> None:
        """Prepare the pass after the one that has run, which feeds these tokens."""
        rows = len(token_R)
        self.optimistic_seq_lens_cpu[:rows] += 1
        self.positions[:rows] += 1
        self.seq_lens[:rows] += 1
        self.input_ids.gpu[:rows] = token_R

    # --- passes that vLLM does not prepare

    def _prepare_pass(
        self,
        start_R: npt.NDArray[np.int64],
        length_R: npt.NDArray[np.int64],
        position_N: npt.NDArray[np.int64],
    ) -> PassGraph:
        """Prepare a pass that feeds so many tokens of each row, from these positions on, so at
        `position_N`; what they are is to be written into the input tokens.
        """
        rows, total = len(start_R), len(position_N)
        end_R = start_R + length_R
        with self.synchronize_input_prep():
            self.input_batch.block_table.commit_block_table(rows)
            self.query_start_loc.np[0] = 0
            length_R.cumsum(out=self.query_start_loc.np[1 : rows + 1])
            self.query_start_loc.np[rows + 1 :].fill(total)
            self.query_start_loc.copy_to_gpu()
            self.optimistic_seq_lens_cpu[:rows] = torch.from_numpy(end_R)
            self.optimistic_seq_lens_cpu[rows:].fill_(0)
            self.positions[:total] = async_tensor_h2d(position_N, device=self.device)
            self.seq_lens[:rows] = async_tensor_h2d(end_R, device=self.device)
            self.seq_lens[rows:].fill_(0)
        mode, batch, _, tokens_across_ranks, _ = self._determine_batch_execution_and_padding(
            num_tokens=total,
            num_reqs=rows,
            num_scheduled_tokens_np=length_R.astype(np.int32),
            max_num_scheduled_tokens=int(length_R.max()),
        )
        return PassGraph(mode, batch, tokens_across_ranks)

    def _forward(self, length_R: npt.NDArray[np.int64], graph: PassGraph) -> torch.Tensor:
        """The hidden states of the prepared pass, (N, H), run as vLLM's `execute_model` runs it."""
        rows, total = len(length_R), int(length_R.sum())
        padded = graph.batch.num_tokens
        is_full = graph.mode == CUDAGraphMode.FULL
        self.input_batch.block_table.compute_slot_mapping(
            rows, self.query_start_loc.gpu[: rows + 1], self.positions[:total]
        )
        by_group, by_layer = self._get_slot_mappings(
            num_tokens_padded=padded,
            num_reqs_padded=graph.batch.num_reqs or rows,
            num_tokens_unpadded=total,
        )
        metadata, _ = self._build_attention_metadata(
            num_tokens=total,
            num_tokens_padded=padded if is_full else None,
            num_reqs=rows,
            num_reqs_padded=(graph.batch.num_reqs or rows) if is_full else None,
            max_query_len=int(length_R.max()),
            slot_mappings=by_group,
        )
        with set_forward_context(
            metadata,
            self.vllm_config,
            num_tokens=padded,
            num_tokens_across_dp=graph.tokens_across_ranks,
            cudagraph_runtime_mode=graph.mode,
            batch_descriptor=graph.batch,
            slot_mapping=by_layer,
            is_padding=self._prepare_padding_mask(total, padded),
        ):
            hidden_NH: torch.Tensor = self._model_forward(
                input_ids=self.input_ids.gpu[:padded], positions=self.positions[:padded]
            )
        return hidden_NH[:total]
