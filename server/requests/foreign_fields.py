"""Fields of other servers, models and clients that mean one of ours or of vLLM's.

vLLM ignores fields that it does not know: a client that sends one of these would believe that it
was obeyed.
"""

from collections.abc import Mapping
from typing import Any

_LENGTH = "thought_budget (thought tokens before each token) or thinking_token_budget (in all)"
_PAYING = "thought_threshold, or thought_budget 0 for no thoughts"
_STRUCTURED = 'structured_outputs, as {{"{}": …}}'

# By name: what to send instead.
INSTEAD: Mapping[str, str] = {
    "n_ahead": "thought_budget",
    "n_ahead_talk": "thought_budget",
    "budget_tokens": _LENGTH,
    "max_reasoning_tokens": _LENGTH,
    "max_thinking_tokens": _LENGTH,
    "max_thought_tokens": _LENGTH,
    "reasoning_budget": _LENGTH,
    "reasoning_max_tokens": _LENGTH,
    "reasoning_tokens": _LENGTH,
    "enable_reasoning": _PAYING,
    "enable_thinking": _PAYING,
    "reasoning": f"{_PAYING}; in chats also reasoning_effort",
    # A field of chats, where it is known.
    "reasoning_effort": f"{_PAYING}; only chats have reasoning_effort",
    "guided_json": _STRUCTURED.format("json"),
    "guided_choice": _STRUCTURED.format("choice"),
    "guided_regex": _STRUCTURED.format("regex"),
    "guided_grammar": _STRUCTURED.format("grammar"),
    "guided_json_object": _STRUCTURED.format("json_object"),
    "guided_whitespace_pattern": _STRUCTURED.format("whitespace_pattern"),
    "guided_decoding_backend": "the server's option --structured-outputs-config",
}
# Objects with fields in them: arguments of client libraries, or of other servers.
CONTAINERS = frozenset(
    {"config", "extra_args", "extra_body", "extra_fields", "generation_config", "kwargs"}
    | {"model_kwargs", "options", "parameters", "params", "sampling_params"}
)


def is_container(name: str, value: Any) -> bool:
    """Whether an unknown field is an object whose fields would be ignored with it."""
    return name.lower() in CONTAINERS and isinstance(value, dict) and bool(value)


def instead_of(name: str) -> str | None:
    """What to send instead of an unknown field; None if nothing is known to be meant by it."""
    return INSTEAD.get(name.lower())
