"""What the scheduler tells the workers about thoughts, attached to vLLM's `SchedulerOutput`, and
what comes back.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

GATE_PHASE = -1


# Never changed. One that is frozen takes three times as long to make, for every row of every pass.
@dataclass(slots=True)
class ThoughtStep:
    """One pass of a thought of `budget` sampled tokens, before visible token number `index`.

        phase 0        x_p, START  [p, p+1]        keep the base hidden state; sample t_1
        phase 1 … b-1  t_k         [p+1+k]         sample t_{k+1}
        phase b        t_b, END    [p+1+b, p+2+b]  mix; then vLLM's own sampler draws x_{p+1}

    In brackets the positions, which are KV slots too: the thought lies in lookahead slots behind
    the text and disappears by being overwritten.

    Where a request thinks only if it pays, `is_gated`, it is decided in a pass before: START is fed
    in a pass of its own, so that a token that is not thought about costs what a plain decode costs.

        gate pass      x_p         [p]             keep the base hidden state; sample x_{p+1}, or
        phase 0        START       [p+1]           sample t_1

    Where tokens are drafted (`speculation`), a pass may do the work of several of these.
    """

    phase: int
    budget: int
    index: int
    is_gated: bool = False

    @classmethod
    def first(cls, budget: int, index: int, is_gated: bool = False) -> "ThoughtStep":
        return cls(GATE_PHASE if is_gated else 0, budget, index, is_gated)

    def next(self, num_passes: int = 1) -> "ThoughtStep":
        """The pass so many passes later; each right draft is a pass, too."""
        return ThoughtStep(self.phase + num_passes, self.budget, self.index, self.is_gated)

    @property
    def is_gate(self) -> bool:
        """Whether it is still to be decided if the request thinks."""
        return self.phase == GATE_PHASE

    @property
    def is_first(self) -> bool:
        """Whether START is fed behind x_p."""
        return self.phase == 0 and not self.is_gated

    @property
    def is_last(self) -> bool:
        return self.phase == self.budget

    def ends_within(self, num_passes: int) -> bool:
        """Whether the last of so many passes, this one included, is the thought's last."""
        return self.phase + num_passes - 1 == self.budget

    def is_decode_only_after(self, num_passes: int) -> bool:
        """Whether the pass that comes `num_passes` later feeds one token of the thought and samples
        the next, without another token in the same pass.
        """
        later = self.next(num_passes)
        return 0 <= later.phase < self.budget and not later.is_first

    @property
    def remaining_passes(self) -> int:
        """Passes to the end of the thought, this one included."""
        return self.budget - self.phase + 1

    @property
    def num_extra_tokens(self) -> int:
        """How many tokens are fed beside the one that vLLM counts: START behind x_p, END behind the
        last thought token.
        """
        return int(self.is_first) + int(self.is_last)

    @property
    def offset(self) -> int:
        """How many positions behind the text token x_p this pass starts; vLLM's count of computed
        tokens stays at p during a thought.
        """
        return 0 if self.is_gate or self.is_first else self.phase + 1


class ThinkingRequest(NamedTuple):
    """What the workers need to know of a request that thinks, for as long as it lives.

    `seed` and `temperature` are those of its thoughts, `threshold` is in nats (`ThoughtParams`).
    `record_key`: the key under which its thoughts are logged, None where nobody asked to see them.
    `forced_tokens`: its visible tokens, where a given text is scored. `first_thought`: the thought
    before its first visible token, where it is given.
    """

    seed: int
    temperature: float
    threshold: float
    record_key: str | None
    forced_tokens: tuple[int, ...]
    first_thought: tuple[int, ...] = ()

    def given(self, step: ThoughtStep) -> tuple[int, ...]:
        """The thought that a pass belongs to, if it is given, else ()."""
        return self.first_thought if step.index == 0 else ()


class Drafting(NamedTuple):
    """How thought tokens are drafted in an engine step, in which every request of the batch is
    thinking and none could join it.

    `max_drafts`: the most that a row feeds in a pass. `least_chance`: how likely a draft must be
    right, with all before it. `patience`: how long those whose thought has ended may wait for the
    others, in passes of the whole batch.
    """

    max_drafts: int
    least_chance: float
    patience: float


class ThoughtPlan(NamedTuple):
    """The thoughts of one engine step.

    `steps`: its first pass, by request id. `new_requests`: thinking requests that are scheduled for
    the first time; preempted ones are not sent again. `aborted`: the reason of each thought given
    up before its end since the last engine step. `num_passes`: 1, or more in a multi-step, where
    every request of the batch is thinking and no thought ends before the last pass. `drafting`: how
    the workers are to draft thought tokens, None = not at all; then `num_passes` is 1.
    `fed_tokens`: with pipeline parallelism, the thought tokens that are fed, by request id: the
    first stage has not sampled them. None where there is one stage.
    """

    steps: dict[str, ThoughtStep]
    new_requests: dict[str, ThinkingRequest]
    aborted: list[str]
    num_passes: int = 1
    drafting: Drafting | None = None
    fed_tokens: dict[str, int] | None = None


def attach_plan(output: SchedulerOutput, plan: ThoughtPlan) -> None:
    """Send the plan to the workers with the engine step that it belongs to."""
    output.thoughts = plan  # type: ignore[attr-defined]


def attached_plan(output: SchedulerOutput) -> ThoughtPlan:
    """The inverse of `attach_plan`."""
    return output.thoughts  # type: ignore[attr-defined,no-any-return]


def attach_passes_run(output: ModelRunnerOutput, number: int) -> ModelRunnerOutput:
    """Report, with the output of a multi-step, how many of its passes have been run."""
    output.passes_run = number  # type: ignore[attr-defined]
    return output


def attached_passes_run(output: ModelRunnerOutput) -> int | None:
    """The inverse of `attach_passes_run`; None where nothing was reported: all were run."""
    return getattr(output, "passes_run", None)


def attach_thought_tokens(output: ModelRunnerOutput, tokens: dict[str, int]) -> None:
    """Report the thought tokens sampled in a pass, by request id."""
    output.thought_tokens = tokens  # type: ignore[attr-defined]


def attached_thought_tokens(output: ModelRunnerOutput) -> dict[str, int]:
    """The inverse of `attach_thought_tokens`; empty where nothing was reported."""
    return getattr(output, "thought_tokens", {})


def later_pass(output: SchedulerOutput, number: int) -> SchedulerOutput:
    """The pass of a multi-step that comes `number` passes after its first, as an engine step of its
    own, without changes to the batch.
    """
    plan = attached_plan(output)
    steps = {request_id: step.next(number) for request_id, step in plan.steps.items()}
    num_tokens = {request_id: 1 + step.num_extra_tokens for request_id, step in steps.items()}
    later = replace(
        output,
        scheduled_new_reqs=[],
        scheduled_cached_reqs=CachedRequestData.make_empty(),
        num_scheduled_tokens=num_tokens,
        total_num_scheduled_tokens=sum(num_tokens.values()),
        finished_req_ids=set(),
        preempted_req_ids=None,
        new_block_ids_to_zero=None,
        kv_cache_block_copies=None,
    )
    attach_plan(later, ThoughtPlan(steps, new_requests={}, aborted=[]))
    return later
