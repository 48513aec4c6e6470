"""The work that waits in the engine and the work that runs, in passes of the base model.

Counted in passes and not in requests, because a request with a thought budget of 16 is the work of
17 with none. Computed when it is asked for, from what vLLM's front end knows of each request.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quietstar_infer.params import ThoughtParams

# What a request with such parameters still takes: after so many visible tokens, up to so many.
RemainingPasses = Callable[[ThoughtParams, int, int], int]
# Between the id of a request and that of one that scores a part of its prompt.
_SCORING = "-score-"


class PassCounts(NamedTuple):
    """Passes that requests are still expected to take, at most: of those that wait for their place
    in a batch, and of those that have one."""

    queued: int
    running: int


class Backlog:
    """How the requests in flight think, and how many of them wait.

    vLLM reports how many requests wait, and not which. Those that have begun have sampled a token,
    or soon will; of the others, the last to arrive wait.
    """

    def __init__(self) -> None:
        self._params: dict[str, ThoughtParams] = {}
        # By engine; empty where vLLM's statistics are off.
        self._num_waiting: dict[int, int] = {}

    def enter(self, request_id: str, params: ThoughtParams) -> None:
        """A request, of a unique id, thinks like this; to be ended with `leave`."""
        self._params[request_id] = params

    def leave(self, request_id: str) -> None:
        """Forget a request."""
        self._params.pop(request_id, None)

    def set_waiting(self, engine: int, number: int) -> None:
        """So many requests wait in an engine."""
        self._num_waiting[engine] = number

    def passes(self, states: Mapping[str, Any], remaining: RemainingPasses) -> PassCounts:
        """What is still to do, of the requests in `OutputProcessor.request_states`, in the order of
        their arrival."""
        begun: list[int] = []
        new: list[int] = []
        for state in states.values():
            number = self._remaining(state, remaining)
            (new if state.is_prefilling else begun).append(number)
        waiting = min(sum(self._num_waiting.values()), len(new))
        first_waiting = len(new) - waiting
        return PassCounts(sum(new[first_waiting:]), sum(begun) + sum(new[:first_waiting]))

    def _remaining(self, state: Any, remaining: RemainingPasses) -> int:
        id_ = state.external_req_id
        params = self._params.get(id_) or self._params.get(id_.rpartition(_SCORING)[0])
        if params is None or state.detokenizer is None:
            return 0
        return remaining(params, state.detokenizer.num_output_tokens(), state.max_tokens_param or 0)
