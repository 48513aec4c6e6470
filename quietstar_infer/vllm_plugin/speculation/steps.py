"""The passes of thoughts with drafts."""

from collections.abc import Mapping

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep
from quietstar_infer.vllm_plugin.speculation.progress import ThoughtProgress


def steps_after(
    steps: Mapping[str, ThoughtStep], progress: ThoughtProgress
) -> dict[str, ThoughtStep]:
    """The passes that come after these, without drafts."""
    return {
        request_id: step.next(progress.reached[request_id] + 1 - step.phase)
        for request_id, step in steps.items()
    }


def with_drafts(
    steps: Mapping[str, ThoughtStep], num_drafts: Mapping[str, int], room: int
) -> dict[str, ThoughtStep]:
    """The passes with their drafts, as far as there is room for so many tokens, beside one that
    vLLM counts of each and one of START and END.
    """
    drafted = {}
    for request_id, step in steps.items():
        number = min(num_drafts.get(request_id, 0), step.budget - step.phase)
        # One more for END, where START is fed, too.
        number = min(number, room - 1)
        if number > 0 and not step.is_gate:
            step = step.with_drafts(number)
            room -= number + 1
        drafted[request_id] = step
    return drafted
