"""Alignment: thoughts of the same budget start together, so that a multi-step can be as long as a
thought.

Requests arrive one after the other, and a multi-step ends with the first thought that ends in it:
if every request began each thought at once, there would be about as many engine steps per thought
as there are requests. So a request waits once, before its second thought or a later one, for those
of the same budget that are under way; then they begin together, and stay aligned. Its first token
is not delayed, and only one later token is, by less than a thought.
"""

from collections.abc import Mapping

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep


class ThoughtAlignment:
    """Which requests wait for the thoughts of which others."""

    def __init__(self) -> None:
        # By request: the requests it waits for, and the index of the thought it waits to see end.
        # Empty once it has waited.
        self._awaited: dict[str, dict[str, int]] = {}

    def should_wait(
        self, request_id: str, step: ThoughtStep, active: Mapping[str, ThoughtStep]
    ) -> bool:
        """Whether a request should not yet begin the thought whose first pass is `step`.

        `active` are the thoughts under way, by request.
        """
        if step.index == 0:
            return False
        if request_id not in self._awaited:
            self._awaited[request_id] = {
                other_id: other.index
                for other_id, other in active.items()
                if other.budget == step.budget
            }
        awaited = self._awaited[request_id]
        if any(id_ in active and active[id_].index == index for id_, index in awaited.items()):
            return True
        awaited.clear()
        return False

    def remove_request(self, request_id: str) -> None:
        """Forget a request that has ended."""
        self._awaited.pop(request_id, None)
