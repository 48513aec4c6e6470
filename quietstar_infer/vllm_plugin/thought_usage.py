"""How often a request has thought, on its way from the scheduler to the front end.

Of a request that thinks before every token the front end can compute it. Where a gate decides,
only the engine knows. vLLM's outputs have no field for it, so it comes in the one for the
parameters of KV transfer, which thinking does not work with; the front end takes it out again.
"""

from typing import NamedTuple

from vllm.v1.engine import EngineCoreOutput

_FIELD = "thought_usage"


class ThoughtUsage(NamedTuple):
    """What an engine request has thought so far: `thoughts` before as many visible tokens, of
    `thought_tokens` sampled tokens in all. `key`: its `ThoughtParams.usage_key`.
    """

    key: str
    thoughts: int
    thought_tokens: int


def attach_usage(output: EngineCoreOutput, usage: ThoughtUsage) -> None:
    """Send the usage to the front end with an output of the request."""
    output.kv_transfer_params = {_FIELD: usage}


def take_usage(output: EngineCoreOutput) -> ThoughtUsage | None:
    """Remove and return what `attach_usage` has attached; None where nothing is: it is unchanged
    since the request's last output.
    """
    fields = output.kv_transfer_params or {}
    if _FIELD not in fields:
        return None
    output.kv_transfer_params = None
    return ThoughtUsage(*fields[_FIELD])
