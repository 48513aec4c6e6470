"""vLLM's V1 model runner with thoughts: where it calls `ThoughtState`, for CUDA and the CPU alike.

The life of a thought is in `thought_state`. What is here is how vLLM's V1 runner is made to place,
feed and sample the rows of a batch that think; several passes per engine step are in `multi_step`.

Shapes: N tokens of the batch (of sampled tokens: rows), R thinking rows, F tokens that they feed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import VllmConfig
from vllm.sequence import IntermediateTensors
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput, SamplerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from quietstar_infer.vllm_plugin.model import QuietStarMixin
from quietstar_infer.vllm_plugin.schedule_plan import attach_thought_tokens, attached_plan
from quietstar_infer.vllm_plugin.speculation.progress import ThoughtProgress, attach_progress
from quietstar_infer.vllm_plugin.thought_log import UnsampledThoughts
from quietstar_infer.vllm_plugin.thought_rows import collect_rows, position_offsets, text_positions
from quietstar_infer.vllm_plugin.thought_state import ThoughtBatch, ThoughtState

if TYPE_CHECKING:
    _Runner = GPUModelRunner
else:
    _Runner = object


class ThinkingRunnerMixin(_Runner):
    """Turns a model runner of vLLM's, the next base class, into one that thinks."""

    thought_state: ThoughtState

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        super().__init__(vllm_config, device)
        # Of the pass that is being run; None where no row thinks.
        self._thoughts: ThoughtBatch | None = None
        # The same once all but the visible tokens is decided.
        self._decided: ThoughtBatch | None = None
        # Of the pass that is being sampled; None where no thought is to be logged.
        self._unsampled: UnsampledThoughts | None = None
        # Of an engine step with drafts, once its passes are run.
        self._progress: ThoughtProgress | None = None

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        model = self.get_model()
        assert isinstance(model, QuietStarMixin)
        self.thought_state = ThoughtState(self.vllm_config, model, self.device)
        # Not by vLLM's option for custom processors: with that, every engine step would wait for
        # the tokens that the last one sampled.
        processors = self.input_batch.logitsprocs.non_argmax_invariant
        processors += [self.thought_state.sample_check, self.thought_state.forced_tokens]

    @torch.inference_mode()
    def execute_model(
        self,
        scheduler_output: SchedulerOutput,
        intermediate_tensors: IntermediateTensors | None = None,
    ) -> Any:
        """The passes of one engine step. Samples at once where it need not wait for a grammar's
        mask, so that vLLM need not ask for it in a second call.
        """
        result = self._run_passes(scheduler_output, intermediate_tensors)
        if (
            result is None
            and not self._is_ahead
            and not scheduler_output.has_structured_output_requests
        ):
            return self.sample_tokens(None)
        return result

    @property
    def _is_ahead(self) -> bool:
        """Whether vLLM sends a pass before the last has ended: then it asks for the samples of each
        in a second call.
        """
        return bool(self.use_async_scheduling) or self._has_stages

    @property
    def _has_stages(self) -> bool:
        """Whether this runner has a part of the model's layers only (pipeline parallelism)."""
        return self.vllm_config.parallel_config.pipeline_parallel_size > 1

    def _run_passes(
        self,
        scheduler_output: SchedulerOutput,
        intermediate_tensors: IntermediateTensors | None = None,
    ) -> Any:
        """One pass, prepared and run by vLLM."""
        plan = attached_plan(scheduler_output)
        self.thought_state.metrics.count_pass(scheduler_output.num_scheduled_tokens, plan)
        return super().execute_model(scheduler_output, intermediate_tensors)

    def _update_states(self, scheduler_output: SchedulerOutput) -> Any:
        for request_id in scheduler_output.preempted_req_ids or ():
            self.thought_state.drop_thought(request_id)
        for request_id in scheduler_output.finished_req_ids:
            self.thought_state.remove_request(request_id)
        for request_id, request in attached_plan(scheduler_output).new_requests.items():
            self.thought_state.add_request(request_id, request)
        return super()._update_states(scheduler_output)

    def _prepare_inputs(
        self, scheduler_output: SchedulerOutput, num_scheduled_tokens: npt.NDArray[np.int32]
    ) -> Any:
        plan = attached_plan(scheduler_output)
        if not plan.steps:
            self._thoughts = None
            return super()._prepare_inputs(scheduler_output, num_scheduled_tokens)

        rows = collect_rows(plan.steps, self.input_batch.req_id_to_index)
        num_computed = self.input_batch.num_computed_tokens_cpu
        position_R = text_positions(rows, num_computed, num_scheduled_tokens)
        # From this count vLLM derives position, sequence length and KV slot. It writes the count
        # anew in every engine step.
        if rows.first.stop < len(rows.steps):
            num_computed[rows.row_R] += position_offsets(rows)
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)

        self._thoughts = self.thought_state.prepare_inputs(
            rows,
            position_R,
            self.query_start_loc.np,
            self.input_ids.gpu,
            plan.fed_tokens,
            is_learning=plan.drafting is not None,
        )
        self._restore_text_tokens(self._thoughts)
        if rows.num_unfinished:
            self._discard_samples(rows.row_R[rows.unfinished])
        return prepared

    def _restore_text_tokens(self, thoughts: ThoughtBatch) -> None:
        """Under asynchronous scheduling the host does not know the text token sampled last. vLLM
        copies it, on the device, to the end of its row, where START belongs in a first pass: it
        goes one place before.
        """
        sampled = self.input_batch.prev_sampled_token_ids
        if sampled is None:
            return
        rows = thoughts.rows
        previous_R = self.prev_positions.np[rows.row_R[rows.first]]
        fresh = np.flatnonzero(previous_R >= 0)
        if fresh.size == 0:
            return
        indices = np.stack([fresh, previous_R[fresh]]).astype(np.int64)
        fresh_F, previous_F = async_tensor_h2d(indices, device=self.device).unbind()
        input_N = self.input_ids.gpu
        text_F = thoughts.inputs.place[rows.first][fresh_F] - 1
        input_N[text_F] = sampled[previous_F, 0].to(input_N.dtype)

    def _discard_samples(self, row_D: npt.NDArray[np.int64]) -> None:
        """Discard what vLLM samples in these rows, as it does for partial prefills."""
        self.discard_request_mask.np[row_D] = True
        self.discard_request_mask.copy_to_gpu(self.input_batch.num_reqs)

    def _model_forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden_NH = super()._model_forward(*args, **kwargs)
        if self._thoughts is not None and isinstance(hidden_NH, IntermediateTensors):
            # All that is decided about thoughts is decided on the last stage.
            self.thought_state.release(self._thoughts)
            self._thoughts = None
        elif self._thoughts is not None:
            self._thoughts = self.thought_state.process_hidden_states(self._thoughts, hidden_NH)
        return hidden_NH

    # mypy takes vLLM's own decorator for the method.
    @torch.inference_mode()
    def sample_tokens(  # type: ignore[override]
        self, grammar_output: GrammarOutput | None
    ) -> Any:
        """vLLM's own, behind the thought tokens; where no row has a visible token to sample, these
        are all.
        """
        thoughts = self._decided or self._decide()
        self._decided = None
        if thoughts is not None and self._none_is_visible(thoughts):
            self.execute_model_state = None
            output: Any = self._no_samples()
        elif self.input_batch.generators:
            with self._only_visible_generators():
                output = super().sample_tokens(grammar_output)  # type: ignore[type-var]
        else:
            output = super().sample_tokens(grammar_output)  # type: ignore[type-var]
        if self._progress is not None:
            attach_progress(output, self._progress)
            self._progress = None
        if self._has_stages and thoughts is not None:
            attach_thought_tokens(output, self.thought_state.sampled_tokens(thoughts))
        return output

    def _decide(self) -> ThoughtBatch | None:
        """All that comes between the language-model head and vLLM's sampler; returns the thoughts
        of the pass that has run, if there are any.
        """
        if self._thoughts is None or self.execute_model_state is None:
            return None
        logits_NV = self.execute_model_state.logits
        thoughts = self._thoughts = self.thought_state.decide(self._thoughts, logits_NV)
        if thoughts.num_begun:
            self._discard_samples(thoughts.beginning)
        if thoughts.continuing.size > 0:
            self._discard_samples(thoughts.continuing)
        self._unsampled = self.thought_state.process_logits(thoughts, logits_NV)
        return thoughts

    def _none_is_visible(self, thoughts: ThoughtBatch) -> bool:
        """Whether every row of the batch is in the middle of a thought."""
        return (
            thoughts.num_visible == 0
            and thoughts.num_thinking == self.input_batch.num_reqs
            and not self.use_async_scheduling
        )

    def _no_samples(self) -> ModelRunnerOutput:
        """The output of an engine step after which all thoughts are unfinished."""
        batch = self.input_batch
        return ModelRunnerOutput(batch.req_ids.copy(), batch.req_id_to_index.copy())

    def _sample(self, *args: Any, **kwargs: Any) -> SamplerOutput:
        sampled = super()._sample(*args, **kwargs)
        if self._unsampled is not None:
            self.thought_state.process_samples(self._unsampled, sampled.sampled_token_ids[:, 0])
            self._unsampled = None
        token_N1 = sampled.sampled_token_ids
        token_N1[:, 0] = self.thought_state.sample_check.mark(token_N1[:, 0])
        return sampled

    @contextmanager
    def _only_visible_generators(self) -> Iterator[None]:
        """Hide the generators of rows whose sample is discarded: a seeded request draws once per
        visible token.

        vLLM draws for every row and winds a discarded row's generator back, which fails on the CPU
        (its generators have no offset). Can go when vLLM neither draws nor winds back there.
        """
        generators = self.input_batch.generators
        discarded = np.flatnonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])
        hidden = {row: generators.pop(row) for row in discarded.tolist() if row in generators}
        try:
            yield
        finally:
            generators.update(hidden)
