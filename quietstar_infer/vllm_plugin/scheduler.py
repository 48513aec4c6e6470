"""Continuous thought batching: to vLLM's scheduler, a thought is a prefill chunk that makes no
progress.

After every pass of a thought but the last, the scheduler takes back the progress that the pass
made, so that the text token thought about counts as not yet computed. vLLM then sees an unfinished
prefill: it expects no output, reserves no place for one, and schedules the request again with one
token in the next engine step, freely mixed with decoding requests, other thoughts and prefills.

A request that thinks only where it pays is scheduled as if it decoded. Whether it has sampled its
visible token in that pass or begun a thought, the scheduler learns from the output: no token means
a thought, and the progress is taken back then. Its next pass depends on it, so under asynchronous
scheduling it is not scheduled again before.

Where every request of a batch is thinking and no other could join, the engine step is a
*multi-step*: the workers run several passes before they report back, or fewer if a request arrives
meanwhile, which saves what an engine step costs beside its pass. For long multi-steps thoughts are
aligned (`alignment`).

With pipeline parallelism, an engine step is scheduled before the last has ended, and only the last
stage knows what was sampled. So a request is not scheduled again before its token, visible or of a
thought, has come back; what a thought feeds goes to the workers with the plan.
"""

import time
from collections.abc import Callable
from typing import Any

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtParams
from quietstar_infer.sampling import seed_from_text
from quietstar_infer.vllm_plugin.alignment import ThoughtAlignment
from quietstar_infer.vllm_plugin.logits_processors import NOT_FINITE, failure_marks
from quietstar_infer.vllm_plugin.options import check_vllm_config, thinking_setup
from quietstar_infer.vllm_plugin.schedule_plan import (
    Drafting,
    ThinkingRequest,
    ThoughtPlan,
    ThoughtStep,
    attach_plan,
    attached_passes_run,
    attached_plan,
    attached_thought_tokens,
)
from quietstar_infer.vllm_plugin.speculation.policy import DraftPolicy
from quietstar_infer.vllm_plugin.speculation.progress import ThoughtProgress, attached_progress
from quietstar_infer.vllm_plugin.thought_usage import ThoughtUsage, attach_usage

logger = init_logger(__name__)


class _ZeroedKVCache(KVCacheConfig):
    """Has every block zeroed before a request gets it.

    vLLM's attention on the CPU reads a block to its end, with weights of 0 behind the text: NaN
    that another request has left there would be NaN in the result. Can go when it does not.
    """

    @property
    def needs_kv_cache_zeroing(self) -> bool:
        return True


class ThinkingScheduler(AsyncScheduler):
    """vLLM's scheduler with thoughts, for synchronous and asynchronous scheduling."""

    def __init__(
        self, vllm_config: VllmConfig, kv_cache_config: KVCacheConfig, *args: Any, **kwargs: Any
    ) -> None:
        if current_platform.is_cpu():
            kv_cache_config = _ZeroedKVCache(**vars(kv_cache_config))
        super().__init__(vllm_config, kv_cache_config, *args, **kwargs)
        check_vllm_config(self.vllm_config)
        setup = thinking_setup(self.vllm_config)
        self._limits = setup.limits
        self._vocab_size = self.vllm_config.model_config.get_vocab_size()
        self._meta_token_ids = setup.config.meta_token_ids
        marks = failure_marks(setup.config.meta_token_ids)
        self._failure_of_mark = {token_id: reason for reason, token_id in marks.items()}
        self._max_passes = setup.max_thought_burst
        self._params: dict[str, ThoughtParams] = {}
        # Thoughts under way: the pass that was scheduled last.
        self._thoughts: dict[str, ThoughtStep] = {}
        self._aborted: list[str] = []
        # Of gated requests: what each has thought so far.
        self._usage: dict[str, ThoughtUsage] = {}
        self._alignment = ThoughtAlignment()
        # Drafts need each pass's outcome before the next is scheduled.
        is_synchronous = not self.scheduler_config.async_scheduling
        self._policy = DraftPolicy(setup.speculative_thoughts if is_synchronous else 0)
        # With pipeline parallelism: the thought token that each request feeds next.
        self._thought_tokens: dict[str, int] = {}
        self._clock = _engine_clock(self.vllm_config)
        # When the last engine step ended, or this one began; None before the first.
        self._step_began: float | None = None
        if self._limits.max_budget > 0:
            # A thought lies behind its text token: START, thought tokens, END.
            self.num_lookahead_tokens = self._limits.max_budget + 2
            # Meta-tokens come on top of what vLLM counts, one per sequence at most.
            self.max_num_scheduled_tokens = min(
                self.max_num_scheduled_tokens,
                self.scheduler_config.max_num_batched_tokens - self.scheduler_config.max_num_seqs,
            )

    # --- requests

    def add_request(self, request: Request) -> None:
        """Queue a request. One whose thoughts cannot be run ends in an error, it alone."""
        try:
            params = self._read_params(request)
        except ThoughtParamsError as error:
            logger.error("Request %s is refused: %s", request.request_id, error)
            params = ThoughtParams(budget=0)
            self.grammar_compile_error_reqs.add(request.request_id)
        self._params.setdefault(request.request_id, params)
        if params.is_gated:
            self._usage.setdefault(request.request_id, ThoughtUsage(params.usage_key or "", 0, 0))
        super().add_request(request)

    def _read_params(self, request: Request) -> ThoughtParams:
        """The request's thought parameters; its output is limited to what the context holds beside
        its thoughts.

        A front end should have refused what does not fit; this is the last line of defence.
        """
        sampling_params = request.sampling_params
        assert sampling_params is not None, "pooling is refused before an engine starts"
        params = ThoughtParams.from_mapping(sampling_params.extra_args, self._limits)
        room = self.max_model_len - params.reserve - request.num_prompt_tokens
        if room < 1:
            raise ThoughtParamsError(
                f"a prompt of {request.num_prompt_tokens} tokens and thoughts of "
                f"{params.longest_thought} do not fit the context of {self.max_model_len}",
                "prompt",
            )
        for token_id in params.first_thought:
            if not 0 <= token_id < self._vocab_size or token_id in self._meta_token_ids:
                raise ThoughtParamsError(
                    f"first_thought has token id {token_id}, must be from 0 to "
                    f"{self._vocab_size - 1}, and neither START's nor END's",
                    "first_thought",
                )
        if params.longest_thought > 0 and sampling_params.prompt_logprobs is not None:
            raise ThoughtParamsError(
                "prompt_logprobs needs thought_budget 0: thoughts about the prompt are not scored",
                "prompt_logprobs",
            )
        request.max_tokens = min(request.max_tokens, room)
        return params

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Its KV blocks are freed, and the thought with them: it is thought again, with the same
        # outcome.
        self._abort_thought(request, "preempted")
        super()._preempt_request(request, *args, **kwargs)

    def _free_request(
        self, request: Request, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        self._abort_thought(request, str(RequestStatus.get_finished_reason(request.status)))
        self._params.pop(request.request_id, None)
        self._usage.pop(request.request_id, None)
        self._alignment.remove_request(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def _abort_thought(self, request: Request, reason: str) -> None:
        """Give up the thought that a request is in the middle of, if it is."""
        self._thought_tokens.pop(request.request_id, None)
        if self._thoughts.pop(request.request_id, None) is not None:
            self._aborted.append(reason)

    # --- before an engine step

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """vLLM's own, without the requests that wait with their next thought to be aligned, and
        those whose last pass is still under way.
        """
        if self._clock is time.monotonic:
            self._step_began = time.monotonic()  # the engine may have had nothing to do
        for request in (*self._requests_to_align(), *self._requests_in_mid_pass()):
            # The count goes up before vLLM compares it: this skips the coming step alone.
            request.next_decode_eligible_step = self.current_step + 2
        return super().schedule(*args, **kwargs)

    def _requests_to_align(self) -> list[Request]:
        """Requests whose next thought waits for others'. Empty when multi-step is off, and while a
        request of the batch does not think, or may not.
        """
        if self._max_passes == 1 or not self._thoughts:
            return []
        if self._policy.is_drafting(len(self.running)):
            return []
        active = {id_: step for id_, step in self._thoughts.items() if not step.is_gated}
        beginning = []
        for request in self.running:
            if request.request_id not in self._thoughts:
                index, budget = self._next_thought(request)
                if budget == 0 or self._params[request.request_id].is_gated:
                    return []
                if not request.is_prefill_chunk:
                    beginning.append((request, ThoughtStep.first(budget, index)))
        return [
            request
            for request, step in beginning
            if self._alignment.should_wait(request.request_id, step, active)
        ]

    def _requests_in_mid_pass(self) -> list[Request]:
        """With pipeline parallelism, requests whose next thought token is still to come: vLLM takes
        them for prefills, of which one chunk may follow the other at once.
        """
        if not self.use_pp:
            return []
        return [
            request
            for request in self.running
            if request.request_id in self._thoughts and request.num_in_flight_tokens > 0
        ]

    def _next_thought(self, request: Request) -> tuple[int, int]:
        """The number of the visible token that a request emits next, and the budget before it."""
        index = request.num_output_tokens + request.num_output_placeholders
        params = self._params[request.request_id]
        if params.is_gated:
            return index, params.budget_after(self._usage[request.request_id].thought_tokens)
        return index, params.budget_at(index)

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        """Plan the thoughts of what vLLM has scheduled: add their meta-tokens, and take back the
        progress of those that stay unfinished.
        """
        scheduled = scheduler_output.num_scheduled_tokens
        steps = self._next_steps(scheduled)
        could_go_on = self._could_go_on(steps, num_rows=len(scheduled))
        drafting = self._policy.drafting(len(scheduled)) if could_go_on else None
        num_passes = 1
        if could_go_on and drafting is None:
            num_passes = min(self._max_passes, *(s.remaining_passes for s in steps.values()))
        for request_id, step in steps.items():
            if step.is_gate:
                continue  # one token, as vLLM has scheduled it
            request = self.requests[request_id]
            if extra := step.num_extra_tokens:
                scheduled[request_id] += extra
                scheduler_output.total_num_scheduled_tokens += extra
                # Lowered before vLLM adds what was scheduled.
                request.num_computed_tokens -= extra
            final = step.next(num_passes - 1) if num_passes > 1 else step
            if final.is_last or _is_open(step, drafting):
                continue  # until its outcome is known it counts as decoding
            # x_p stays uncomputed until the thought is done.
            request.num_computed_tokens -= 1
            self._thoughts[request_id] = final
        new_requests = self._new_requests(scheduler_output)
        attach_plan(
            scheduler_output,
            ThoughtPlan(
                steps, new_requests, self._aborted, num_passes, drafting, self._fed_tokens(steps)
            ),
        )
        self._aborted = []
        super()._update_after_schedule(scheduler_output)
        for request_id in scheduled if self.use_pp else steps:
            request, awaited = self.requests[request_id], steps.get(request_id)
            if (self.use_pp and not request.is_prefill_chunk) or (
                awaited is not None and _awaits_output(awaited, num_passes, drafting)
            ):
                # Without a place for its token, vLLM does not schedule the request again.
                request.num_output_placeholders -= 1

    def _fed_tokens(self, steps: dict[str, ThoughtStep]) -> dict[str, int] | None:
        """The thought tokens that these passes feed, where the workers do not know them."""
        if not self.use_pp:
            return None
        return {
            request_id: self._thought_tokens.pop(request_id)
            for request_id, step in steps.items()
            if step.phase > 0
        }

    def _new_requests(self, scheduler_output: SchedulerOutput) -> dict[str, ThinkingRequest]:
        """What the workers need to know of thinking requests that they have not met."""
        return {
            new.req_id: self._thinking_request(self.requests[new.req_id])
            for new in scheduler_output.scheduled_new_reqs
            if self._params[new.req_id].longest_thought > 0
        }

    def _thinking_request(self, request: Request) -> ThinkingRequest:
        params, sampling_params = self._params[request.request_id], request.sampling_params
        assert sampling_params is not None, "pooling is refused before an engine starts"
        seed = sampling_params.seed
        return ThinkingRequest(
            seed=seed_from_text(request.request_id) if seed is None else seed,
            temperature=params.temperature,
            threshold=params.threshold,
            record_key=params.record_key,
            forced_tokens=params.forced_tokens,
            first_thought=params.first_thought,
        )

    def _next_steps(self, scheduled: dict[str, int]) -> dict[str, ThoughtStep]:
        """The passes of thoughts among what was scheduled."""
        steps = {
            request_id: self._next_step(self.requests[request_id], num_tokens)
            for request_id, num_tokens in scheduled.items()
        }
        return {request_id: step for request_id, step in steps.items() if step is not None}

    def _next_step(self, request: Request, num_tokens: int) -> ThoughtStep | None:
        """The pass of a thought that a request's scheduled tokens are; None where it does not
        think.
        """
        thought = self._thoughts.pop(request.request_id, None)
        if thought is not None:
            return thought.next()
        if (
            request.num_computed_tokens + num_tokens
            < request.num_tokens + request.num_output_placeholders
        ):
            return None  # a prefill chunk that does not reach the last text token
        index, budget = self._next_thought(request)
        if budget == 0:
            return None
        return ThoughtStep.first(budget, index, self._params[request.request_id].is_gated)

    def _could_go_on(self, steps: dict[str, ThoughtStep], num_rows: int) -> bool:
        """Whether the workers may run several passes before they report back: not if any request of
        the batch decodes or may, or prefills, or a waiting request could join it.
        """
        if self._max_passes == 1 or not 0 < len(steps) == num_rows:
            return False
        num_running, num_waiting = self.get_request_counts()
        could_join = num_waiting > 0 and num_running < self.max_num_running_reqs
        return not could_join and not any(step.is_gate for step in steps.values())

    # --- after an engine step

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """vLLM's own, after the plan is corrected by what has been decided in the gate passes, and
        by how many passes of a multi-step were run.
        """
        plan = attached_plan(scheduler_output)
        num_passes = attached_passes_run(model_runner_output) or plan.num_passes
        progress = attached_progress(model_runner_output)
        used: dict[str, ThoughtUsage] = {}
        for request_id, step in plan.steps.items():
            if step.is_gate and _has_sampled(request_id, model_runner_output):
                continue  # it has decoded, as it was counted on to do
            request = self.requests.get(request_id)
            if request is None or request.is_finished():
                continue  # aborted meanwhile
            if (
                step.is_gated
                and not step.is_gate
                and _has_ended(request_id, step, num_passes, progress)
            ):
                used[request_id] = self._count(request_id, step.budget)
            # What comes of a step from before a preemption changes no progress.
            if request.num_stale_output_tokens > 0:
                continue
            if progress is not None:
                self._go_on(request, step, progress.reached[request_id])
            else:
                self._correct(request, step, plan.num_passes, num_passes)
        self._thought_tokens |= {
            request_id: token
            for request_id, token in attached_thought_tokens(model_runner_output).items()
            if request_id in self._thoughts  # not preempted meanwhile
        }
        failures = self._take_failures(model_runner_output)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._report(used, failures, outputs)
        self._observe(plan, len(scheduler_output.num_scheduled_tokens), num_passes, progress)
        return outputs

    def _observe(
        self,
        plan: ThoughtPlan,
        num_rows: int,
        num_passes: int,
        progress: ThoughtProgress | None,
    ) -> None:
        """Tell the policy what the engine step has taken."""
        began, self._step_began = self._step_began, self._clock()
        if began is None:
            return
        seconds = self._step_began - began
        tokens = num_rows * num_passes
        if progress is not None:
            self._policy.observe_passes(progress.num_passes, progress.num_tokens, seconds)
            tokens = sum(
                progress.reached[request_id] + 1 - step.phase
                for request_id, step in plan.steps.items()
            )
        if len(plan.steps) == num_rows and not any(step.is_gate for step in plan.steps.values()):
            self._policy.observe_thoughts(
                num_rows, tokens, seconds, is_drafting=progress is not None
            )

    def _go_on(self, request: Request, step: ThoughtStep, reached: int) -> None:
        """Have a thought go on, or end, where its drafts have brought it."""
        if reached < step.budget:
            self._begin_thought(request, step.next(reached - step.phase))

    def _take_failures(self, model_runner_output: ModelRunnerOutput) -> dict[str, str]:
        """Have the requests end in an error of which no token could be sampled (`SampleCheck`);
        returns why. What they have computed is not for the prefix cache.
        """
        failures = {}
        sampled = model_runner_output.sampled_token_ids
        for request_id, row in model_runner_output.req_id_to_index.items() if sampled else ():
            reason = self._failure_of_mark.get(sampled[row][-1]) if sampled[row] else None
            if reason is None:
                continue
            sampled[row].clear()
            request = self.requests.get(request_id)
            if request is None or request.is_finished():
                continue  # aborted meanwhile
            failures[request_id] = reason
            # vLLM forbids outputs about the prompt of a request that has no token.
            model_runner_output.prompt_logprobs_dict.pop(request_id, None)
            if reason == NOT_FINITE:
                blocks = self.kv_cache_manager.get_block_ids(request_id)
                self.kv_cache_manager.evict_blocks({block for group in blocks for block in group})
        # vLLM ends these, and no others, with an error of their own.
        self.grammar_compile_error_reqs.update(failures)
        return failures

    def _correct(self, request: Request, step: ThoughtStep, planned: int, run: int) -> None:
        """Correct the progress of a request where another was counted on."""
        if step.is_gate:
            self._begin_thought(request, step)
        elif run < planned:
            self._cut_short(request, step, planned, run)

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        if request.num_output_placeholders == 0 and not is_stale:
            # It was taken back until the token is there.
            request.num_output_placeholders = 1
        return super()._update_request_with_output(request, new_token_ids, is_stale)

    def _begin_thought(self, request: Request, step: ThoughtStep) -> None:
        """Have a request think that was counted on to decode."""
        self._thoughts[request.request_id] = step
        request.num_computed_tokens -= 1
        request.is_prefill_chunk = True

    def _cut_short(self, request: Request, step: ThoughtStep, planned: int, run: int) -> None:
        """Have a thought go on after the passes that have been run, not after those planned."""
        self._thoughts[request.request_id] = step.next(run - 1)
        if step.ends_within(planned):
            # Its visible token, which was counted on, is still to come.
            request.num_computed_tokens -= 1
            request.is_prefill_chunk = True
            if not _awaits_output(step, planned):
                request.num_output_placeholders -= 1

    def _count(self, request_id: str, budget: int) -> ThoughtUsage:
        """Count a thought that has ended; returns what the request has thought by now."""
        usage = self._usage[request_id]
        usage = usage._replace(
            thoughts=usage.thoughts + 1, thought_tokens=usage.thought_tokens + budget
        )
        self._usage[request_id] = usage
        return usage

    def _report(
        self,
        used: dict[str, ThoughtUsage],
        failures: dict[str, str],
        outputs: dict[int, EngineCoreOutputs],
    ) -> None:
        """Send what requests have thought to the front end, where it asked for that, and why they
        have failed.
        """
        if not used and not failures:
            return
        for client in outputs.values():
            for output in client.outputs:
                output.stop_reason = failures.get(output.request_id, output.stop_reason)
                usage = used.get(output.request_id)
                if usage is not None and usage.key:
                    attach_usage(output, usage)


def _engine_clock(vllm_config: VllmConfig) -> Callable[[], float]:
    """Seconds, to compare engine steps by. Where the engine is its own worker, those that this
    thread computes: what else the machine does says nothing about a step.
    """
    is_alone = vllm_config.parallel_config.world_size == 1
    return time.thread_time if current_platform.is_cpu() and is_alone else time.monotonic


def _is_open(step: ThoughtStep, drafting: Drafting | None) -> bool:
    """Whether it is decided in the engine step if the request's visible token is sampled in it."""
    return step.is_gate or drafting is not None


def _awaits_output(step: ThoughtStep, num_passes: int, drafting: Drafting | None = None) -> bool:
    """Whether the next pass of a request depends on the output of the engine step that begins with
    this pass: where it is decided if the request thinks, how far its drafts bring it, or how much
    it has left to think.
    """
    return _is_open(step, drafting) or (step.is_gated and step.ends_within(num_passes))


def _has_ended(
    request_id: str, step: ThoughtStep, num_passes: int, progress: ThoughtProgress | None
) -> bool:
    """Whether a thought has ended with an engine step that began with this pass."""
    if progress is not None:
        return progress.reached[request_id] == step.budget
    return step.ends_within(num_passes)


def _has_sampled(request_id: str, output: ModelRunnerOutput) -> bool:
    """Whether the engine step has yielded a token of the request."""
    sampled = output.sampled_token_ids
    return bool(sampled) and bool(sampled[output.req_id_to_index[request_id]])
