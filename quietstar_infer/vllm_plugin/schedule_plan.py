"""What the scheduler tells the runner about one row's thought."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput


@dataclass(frozen=True)
class ThoughtStep:
    """One pass of a thought of `budget` sampled tokens, before visible token number `index`.

        phase 0        x_p, START  [p, p+1]        keep the base hidden state; sample t_1
        phase 1 … b-1  t_k         [p+1+k]         sample t_{k+1}
        phase b        t_b, END    [p+1+b, p+2+b]  mix; then vLLM's own sampler says x_{p+1}

    In brackets the positions, which are KV slots too: the thought lies in lookahead slots behind
    the text and disappears by being overwritten.
    """

    phase: int
    budget: int
    index: int

    @classmethod
    def first(cls, budget: int, index: int) -> "ThoughtStep":
        return cls(phase=0, budget=budget, index=index)

    def next(self, num_passes: int = 1) -> "ThoughtStep":
        return ThoughtStep(self.phase + num_passes, self.budget, self.index)

    @property
    def is_first(self) -> bool:
        return self.phase == 0

    @property
    def is_last(self) -> bool:
        return self.phase == self.budget

    def is_plain_after(self, num_passes: int) -> bool:
        """Whether, so many passes later, one thought token goes in and the next is chosen, without
        a meta-token along.
        """
        return 0 < self.phase + num_passes < self.budget

    @property
    def remaining_passes(self) -> int:
        """Passes to the end of the thought, this one included."""
        return self.budget - self.phase + 1

    @property
    def riding_tokens(self) -> int:
        """1 where a meta-token shares the pass of another token: START with x_p, END with the last
        thought token.
        """
        return int(self.is_first or self.is_last)

    @property
    def shift(self) -> int:
        """How far behind the text token x_p this pass starts; vLLM's own count stays at p during a
        thought.
        """
        return 0 if self.is_first else self.phase + 1


class ThoughtPlan(NamedTuple):
    """What the scheduler tells the workers about thoughts, along with an engine step.

    `steps`: this pass, by request id. `aborted`: why thoughts were given up in the middle since the
    last step, one word for each. `num_passes`: 1, or more where the engine step is a burst: then
    every row of the batch is thinking, and no thought ends before the last of these passes.
    """

    steps: dict[str, ThoughtStep]
    aborted: list[str]
    num_passes: int = 1


def attach_thoughts(output: SchedulerOutput, plan: ThoughtPlan) -> None:
    """Send the plan to the workers along with the step it belongs to."""
    output.thoughts = plan  # type: ignore[attr-defined]


def attached_thoughts(output: SchedulerOutput) -> ThoughtPlan:
    """The inverse of `attach_thoughts`."""
    return output.thoughts  # type: ignore[attr-defined,no-any-return]


def note_passes(output: ModelRunnerOutput, number: int) -> ModelRunnerOutput:
    """Say along with the outcome of a burst how many of its passes have been run."""
    output.passes_run = number  # type: ignore[attr-defined]
    return output


def passes_run(output: ModelRunnerOutput) -> int | None:
    """The inverse of `note_passes`; None where nothing was noted, and all were run."""
    return getattr(output, "passes_run", None)


def later_pass(output: SchedulerOutput, number: int) -> SchedulerOutput:
    """The pass of a burst that comes `number` passes after its first, in the form of an engine step
    of its own that brings no news of requests.
    """
    plan = attached_thoughts(output)
    steps = {request_id: step.next(number) for request_id, step in plan.steps.items()}
    num_tokens = {request_id: 1 + step.riding_tokens for request_id, step in steps.items()}
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
    attach_thoughts(later, ThoughtPlan(steps, []))
    return later
