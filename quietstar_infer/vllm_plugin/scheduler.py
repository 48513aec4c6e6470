"""Continuous thought batching: to vLLM's scheduler, a thought is a prefill chunk that does not
advance.

After every pass of a thought but the last, the scheduler takes back the progress that the pass
made, so that the text token thought about counts as not yet computed. vLLM then sees an unfinished
prefill: it expects no output, reserves no place for one, and schedules the request again with one
token in the next step, mixed freely with speaking rows, other thoughts and real prefills.

Where every row of a batch is thinking and nobody could join, the step is a *burst*: the workers run
several passes before they report back, or fewer if somebody arrives meanwhile, which saves what an
engine step costs beside its pass. For long bursts thoughts march in step (`lockstep`).
"""

from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.alignment import Lockstep
from quietstar_infer.vllm_plugin.options import check_vllm_config, thinking_setup
from quietstar_infer.vllm_plugin.schedule_plan import (
    ThoughtPlan,
    ThoughtStep,
    attach_thoughts,
    attached_thoughts,
    passes_run,
)

logger = init_logger(__name__)


class ThinkingScheduler(AsyncScheduler):
    """vLLM's scheduler with thoughts, for synchronous and asynchronous scheduling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_vllm_config(self.vllm_config)
        setup = thinking_setup(self.vllm_config)
        self._limits = setup.limits
        # With LoRA every pass needs vLLM's preparations, so none can be an inner one of a burst.
        self._max_burst = 1 if self.vllm_config.lora_config else setup.max_thought_burst
        self._params: dict[str, ThoughtParams] = {}
        self._thoughts: dict[str, ThoughtStep] = {}
        self._aborted: list[str] = []
        self._lockstep = Lockstep()
        if self._limits.max_budget > 0:
            # A thought lies behind its text token: START, thought tokens, END.
            self.num_lookahead_tokens = self._limits.max_budget + 2
            # Riding tokens come on top of what vLLM counts, one per sequence at most.
            self.max_num_scheduled_tokens = min(
                self.max_num_scheduled_tokens,
                self.scheduler_config.max_num_batched_tokens - self.scheduler_config.max_num_seqs,
            )

    def add_request(self, request: Request) -> None:
        """Queue a request. One whose thoughts cannot be run ends in an error, it alone."""
        try:
            params = self._read_params(request)
        except ThoughtParamsError as error:
            logger.error("Request %s is refused: %s", request.request_id, error)
            params = ThoughtParams(budget=0)
            self.grammar_compile_error_reqs.add(request.request_id)
        self._params.setdefault(request.request_id, params)
        super().add_request(request)

    def _read_params(self, request: Request) -> ThoughtParams:
        """The request's thought parameters, its output limited to what the context holds with its
        thoughts.

        A front end should have refused what does not fit; this is the last line of defence.
        """
        sampling_params = request.sampling_params
        assert sampling_params is not None, "pooling is refused before an engine starts"
        params = ThoughtParams.from_mapping(sampling_params.extra_args, self._limits)
        room = self.max_model_len - params.reserve - request.num_prompt_tokens
        if room < 1:
            raise ThoughtParamsError(
                f"a prompt of {request.num_prompt_tokens} tokens and thoughts of {params.budget} "
                f"do not fit the context of {self.max_model_len}",
                "prompt",
            )
        if params.budget > 0 and sampling_params.prompt_logprobs is not None:
            raise ThoughtParamsError(
                "prompt_logprobs needs thought_budget 0: thoughts about the prompt are not scored",
                "prompt_logprobs",
            )
        request.max_tokens = min(request.max_tokens, room)
        return params

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """vLLM's own, without the requests that do better to wait a little with their thought."""
        for request in self._held_requests():
            request.next_decode_eligible_step = self.current_step + 2
        return super().schedule(*args, **kwargs)

    def _held_requests(self) -> list[Request]:
        """Whose next thought waits for the others'. Nobody's, where there is no burst to be had."""
        if self._max_burst == 1 or not self._thoughts:
            return []
        beginning = []
        for request in self.running:
            if request.request_id not in self._thoughts:
                index, budget = self._next_thought(request)
                if budget == 0:
                    return []  # somebody speaks
                if not request.is_prefill_chunk:
                    beginning.append((request, ThoughtStep.first(budget, index)))
        return [
            request
            for request, step in beginning
            if self._lockstep.is_held(request.request_id, step, self._thoughts)
        ]

    def _next_thought(self, request: Request) -> tuple[int, int]:
        """The number of the visible token that a request says next, and the budget before it."""
        index = request.num_output_tokens + request.num_output_placeholders
        return index, self._params[request.request_id].budget_at(index)

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        """Add the riding tokens to what was scheduled, and take back the progress of unfinished
        thoughts.
        """
        scheduled = scheduler_output.num_scheduled_tokens
        steps = self._next_steps(scheduled)
        num_passes = self._num_passes(steps, num_rows=len(scheduled))
        for request_id, step in steps.items():
            request = self.requests[request_id]
            scheduled[request_id] += step.riding_tokens
            scheduler_output.total_num_scheduled_tokens += step.riding_tokens
            final = step.next(num_passes - 1)
            # Lowered before vLLM adds what was scheduled: x_p stays uncomputed until the thought is
            # done.
            request.num_computed_tokens -= step.riding_tokens + (0 if final.is_last else 1)
            if not final.is_last:
                self._thoughts[request_id] = final
        attach_thoughts(scheduler_output, ThoughtPlan(steps, self._aborted, num_passes))
        self._aborted = []
        super()._update_after_schedule(scheduler_output)

    def _next_steps(self, scheduled: dict[str, int]) -> dict[str, ThoughtStep]:
        """The passes of thoughts among what was scheduled."""
        steps = {
            request_id: self._next_step(self.requests[request_id], num_tokens)
            for request_id, num_tokens in scheduled.items()
        }
        return {request_id: step for request_id, step in steps.items() if step is not None}

    def _num_passes(self, steps: dict[str, ThoughtStep], num_rows: int) -> int:
        """How many passes the workers may run before they report back.

        One, if somebody speaks, reads or waits for a row that is free.
        """
        num_running, num_waiting = self.get_request_counts()
        could_join = num_waiting > 0 and num_running < self.max_num_running_reqs
        if not steps or len(steps) < num_rows or could_join:
            return 1
        return min(self._max_burst, *(step.remaining_passes for step in steps.values()))

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """vLLM's own, once it is known whether a burst has been cut short."""
        plan = attached_thoughts(scheduler_output)
        num_passes = passes_run(model_runner_output)
        if num_passes is not None and num_passes < plan.num_passes:
            for request_id, step in plan.steps.items():
                self._cut_short(request_id, step, plan.num_passes, num_passes)
        return super().update_from_output(scheduler_output, model_runner_output)

    def _cut_short(self, request_id: str, step: ThoughtStep, planned: int, run: int) -> None:
        """Have a thought go on after the passes that have been run, not after those planned."""
        request = self.requests.get(request_id)
        if request is None or request.is_finished():
            return  # aborted meanwhile
        self._thoughts[request_id] = step.next(run - 1)
        if step.next(planned - 1).is_last:
            # It has not spoken: what was counted on as its visible token is still to come.
            request.num_computed_tokens -= 1
            request.num_output_placeholders -= 1
            request.is_prefill_chunk = True

    def _next_step(self, request: Request, num_tokens: int) -> ThoughtStep | None:
        """The pass of a thought that this step's tokens of a request are; None where it is not
        thinking.
        """
        thought = self._thoughts.pop(request.request_id, None)
        if thought is not None:
            step = thought.next()
        else:
            if (
                request.num_computed_tokens + num_tokens
                < request.num_tokens + request.num_output_placeholders
            ):
                return None  # a prefill chunk that does not reach the last text token
            index, budget = self._next_thought(request)
            if budget == 0:
                return None
            step = ThoughtStep.first(budget, index)
        return step

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Its KV blocks go, the thought with them: it is thought again, and comes out the same.
        self._abort_thought(request, "preempted")
        super()._preempt_request(request, *args, **kwargs)

    def _free_request(
        self, request: Request, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        self._abort_thought(request, str(RequestStatus.get_finished_reason(request.status)))
        self._params.pop(request.request_id, None)
        self._lockstep.forget(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def _abort_thought(self, request: Request, reason: str) -> None:
        """Forget the thought that a request is in the middle of, if it is."""
        if self._thoughts.pop(request.request_id, None) is not None:
            self._aborted.append(reason)
