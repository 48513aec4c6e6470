"""Made-up workers of an engine, and its outputs, for the thoughts of one request."""

from types import SimpleNamespace
from typing import Any, cast

from quietstar_infer.params import ThoughtParams
from server.api.thoughts import RequestThoughts
from server.engine.engine import Engine
from server.metrics.requests import RequestMetrics
from server.vllm_api import RequestOutput


class Workers:
    """Answer like the engine's workers, and note which keys were dropped."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.dropped: list[str] = []
        self.request_metrics = RequestMetrics("made up", max_budget=16)

    def think(self, key: str | None, request_id: str, *indices: int) -> None:
        """Record a thought before each of these tokens of an engine request."""
        assert key is not None
        thoughts = [{"index": i, "token_ids": [i, i], **numbers(i)} for i in indices]
        self.records.setdefault(key, {})[request_id] = thoughts

    async def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        return self.records.pop(key, {})

    async def drop_thoughts(self, key: str) -> None:
        self.dropped.append(key)


def numbers(index: int) -> dict[str, float]:
    """What the workers measure of the thought before a token."""
    return {"mixing_weight": index / 2, "base_logprob": -index - 2, "mixed_logprob": -index - 1}


def thoughts_of(
    workers: Workers, prompts: int = 1, choices: int = 1, wanted: bool = True, budget: int = 2
) -> tuple[RequestThoughts, list[str | None]]:
    """A request's thoughts and the record keys of its prompts."""
    thoughts = RequestThoughts(
        ThoughtParams(budget), choices, wanted, cast(Engine, workers), lambda ids: f"{list(ids)}"
    )
    keys = [thoughts.add_prompt(num_scored_tokens=0).record_key for _ in range(prompts)]
    return thoughts, keys


def output(*tokens_by_choice: int) -> RequestOutput:
    """The engine's output for one prompt, with so many new tokens of each choice."""
    outputs = [
        SimpleNamespace(index=index, token_ids=[0] * tokens, finish_reason=None)
        for index, tokens in enumerate(tokens_by_choice)
    ]
    return cast(RequestOutput, SimpleNamespace(outputs=outputs, finished=False))


def response(*indices: int, **fields: Any) -> dict[str, Any]:
    """A response, or a chunk, with choices of these indices."""
    return {"choices": [{"index": index} for index in indices], **fields}
