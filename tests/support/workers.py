"""Made-up workers of an engine, and its outputs, for the thoughts of one request."""

from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from quietstar_infer.params import ThoughtParams
from server.api.thoughts import RequestThoughts
from server.api.usage import UsageStyle
from server.engine.engine import Engine
from server.engine.usage_ledger import OnSpending, UsageLedger
from server.metrics.requests import RequestMetrics
from server.vllm_api import RequestOutput


class Workers:
    """Answer like an engine and its workers, and note which keys were dropped."""

    gate_kind = "learned"

    def __init__(self) -> None:
        self.records: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.dropped: list[str] = []
        self.request_metrics = RequestMetrics("made up", max_budget=16)
        self.ledger = UsageLedger()

    def think(self, key: str | None, request_id: str, *indices: int) -> None:
        """Record a thought before each of these tokens of an engine request."""
        assert key is not None
        thoughts = [{"index": i, "token_ids": [i, i], **numbers(i)} for i in indices]
        self.records.setdefault(key, {}).setdefault(request_id, []).extend(thoughts)

    def skip(self, key: str | None, request_id: str, *indices: int) -> None:
        """Record that none of these tokens of an engine request was thought about."""
        assert key is not None
        for index in indices:
            entry: dict[str, Any] = {
                "index": index,
                "token_ids": [],
                **numbers(index, skipped=True),
            }
            self.records.setdefault(key, {}).setdefault(request_id, []).append(entry)

    async def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        return self.records.pop(key, {})

    async def drop_thoughts(self, key: str) -> None:
        self.dropped.append(key)


def numbers(index: int, skipped: bool = False) -> dict[str, float | None]:
    """What the workers measure of the thought before a token, or where there was none."""
    return {
        "expected_gain": index / 4,
        "mixing_weight": None if skipped else index / 2,
        "base_logprob": -index - 2,
        "mixed_logprob": -index - (2 if skipped else 1),
    }


class ThoughtKeys(NamedTuple):
    """The keys of one prompt, in the workers and in the ledger."""

    record: str | None
    usage: str | None
    scoring: str | None


def thoughts_with(
    workers: Workers,
    params: ThoughtParams,
    prompts: int = 1,
    choices: int = 1,
    wanted: bool = True,
    scored: int = 0,
    on_spending: OnSpending = lambda _: None,
) -> tuple[RequestThoughts, list[ThoughtKeys]]:
    """A request's thoughts and the keys of its prompts, of which so many tokens are scored."""
    engine = cast(Engine, workers)
    thoughts = RequestThoughts(
        params, choices, wanted, engine, lambda ids: f"{list(ids)}", on_spending, UsageStyle.VISIBLE
    )
    keys = []
    for _ in range(prompts):
        told = thoughts.add_prompt(num_scored_tokens=scored)
        told_keys = (told.params.record_key, told.params.usage_key, told.scoring_usage_key)
        keys.append(ThoughtKeys(*told_keys))
    return thoughts, keys


def thoughts_of(
    workers: Workers, prompts: int = 1, choices: int = 1, wanted: bool = True, budget: int = 2
) -> tuple[RequestThoughts, list[str | None]]:
    """Those of a request that thinks before every token, and its record keys."""
    thoughts, keys = thoughts_with(workers, ThoughtParams(budget), prompts, choices, wanted)
    return thoughts, [prompt.record for prompt in keys]


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
