"""Thoughts of the same length march in step, so that bursts can be as long as a thought.

Requests arrive one after the other, and a burst ends with the first thought that ends in it: were
each to think on as it came, there would be about as many engine steps per thought as there are
requests. So a request waits once, before its second thought or a later one, for those of the same
budget that are under way: then they begin together, and stay together. Its first token is not
delayed, and only one later one, by less than a thought.
"""

from collections.abc import Mapping

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep


class Lockstep:
    """Who waits for whom."""

    def __init__(self) -> None:
        # By request: the others it waits for, and before which of their visible tokens they think.
        # Nobody, once it has waited.
        self._awaited: dict[str, dict[str, int]] = {}

    def is_held(self, request_id: str, step: ThoughtStep, going: Mapping[str, ThoughtStep]) -> bool:
        """Whether a request does better to wait with a thought that it could begin with `step`.

        `going` are the thoughts under way, of all requests.
        """
        if step.index == 0:
            return False
        if request_id not in self._awaited:
            self._awaited[request_id] = {
                other_id: other.index
                for other_id, other in going.items()
                if other.budget == step.budget
            }
        awaited = self._awaited[request_id]
        if any(id_ in going and going[id_].index == index for id_, index in awaited.items()):
            return True
        awaited.clear()
        return False

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._awaited.pop(request_id, None)
