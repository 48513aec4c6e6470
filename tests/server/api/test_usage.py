"""What a request has spent: computed, as a made-up engine reports it, and in answers."""

from typing import Any

import httpx
import pytest
from openai import OpenAI

from quietstar_infer.params import ThoughtParams
from server.admission.cost import Spending
from server.api.usage import RequestUsage, UsageStyle
from server.engine.usage_ledger import UsageLedger
from tests.support.servers import RunningServer

GATED = ThoughtParams(4, threshold=0.1)


def usage_of(params: ThoughtParams, choices: int = 1) -> tuple[RequestUsage, UsageLedger]:
    ledger = UsageLedger()
    return RequestUsage(params, choices, ledger, lambda _: None), ledger


@pytest.mark.parametrize(
    ("style", "of_text", "added"),
    [
        ("visible", None, {"thought_tokens": 8}),
        ("visible", 1, {"thought_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 1}}),
        ("openai", None, {"completion_tokens_details": {"reasoning_tokens": 8}}),
        # What vLLM's reasoning parser found in the text was counted with it.
        ("openai", 1, {"completion_tokens_details": {"reasoning_tokens": 9}}),
    ],
)
def test_thought_tokens_are_beside_or_within_those_of_the_completion(
    style: str, of_text: int | None, added: dict[str, Any]
) -> None:
    details = None if of_text is None else {"reasoning_tokens": of_text}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    reported = {**usage, "completion_tokens_details": details}
    UsageStyle(style).report(reported, 8)
    if style == "openai":
        usage |= {"completion_tokens": 10, "total_tokens": 15}
    assert reported == usage | added


def test_a_running_usage_counts_from_zero() -> None:
    usage: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    UsageStyle.OPENAI.report(usage, 0)
    assert usage["completion_tokens"] == 0
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_each_choice_has_its_own_token_budget() -> None:
    usage, _ = usage_of(ThoughtParams(2, token_budget=5), choices=2)
    assert usage.add_prompt(0) == (None, None)
    assert usage.add_tokens(0, 2) == range(2)
    usage.add_tokens(1, 2)
    assert usage.add_tokens(0, 2) == range(2, 4)
    assert usage.of_choice(0) == Spending(4, 3, 5)
    assert usage.of_choice(1) == Spending(2, 2, 4)
    assert usage.of_choices() == Spending(6, 5, 9)


def test_prompts_have_unguessable_keys_only_where_a_gate_decides() -> None:
    usage, _ = usage_of(GATED)
    plain, scored = usage.add_prompt(0), usage.add_prompt(9)
    assert plain.scoring is None
    keys = [plain.answers, scored.answers, scored.scoring]
    assert len(set(keys)) == 3
    assert all(key is not None and len(key) > 40 for key in keys)


def test_choices_of_several_prompts_are_told_apart() -> None:
    usage, ledger = usage_of(GATED, choices=2)
    keys = [usage.add_prompt(0).answers for _ in range(2)]
    for prompt, child in ((0, 0), (0, 1), (1, 0), (1, 1)):
        key = keys[prompt]
        assert key is not None
        number = 1 + usage.choice(prompt, child)
        ledger.record(key, f"{child}_cmpl-x-{prompt}-abc", Spending(1, number, 4 * number))
        usage.add_tokens(usage.choice(prompt, child), 1)
    assert [usage.of_choice(choice).thoughts for choice in range(4)] == [1, 2, 3, 4]
    assert usage.of_choices([1, 2]) == Spending(2, 5, 20)


def test_tokens_that_the_response_has_not_seen_do_not_count() -> None:
    """The engine is ahead of a slow stream, and goes on for a moment after a stop string."""
    usage, ledger = usage_of(GATED)
    key = usage.add_prompt(0).answers
    assert key is not None
    assert usage.of_choice(0) == Spending()
    for spent in (Spending(2, 1, 4), Spending(5, 2, 8), Spending(6, 3, 12)):
        ledger.record(key, "cmpl-x-0-abc", spent)
    told = []
    for _ in range(7):
        usage.add_tokens(0, 1)
        told.append(usage.of_choice(0).thoughts)
    assert told == [0, 1, 1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("params", "spent"),
    [
        (ThoughtParams(0), Spending()),  # scored by the prefill
        (ThoughtParams(3), Spending(18, 18, 54)),
    ],
)
def test_scoring_without_a_gate(params: ThoughtParams, spent: Spending) -> None:
    usage, _ = usage_of(params)
    usage.add_prompt(9)
    usage.add_prompt(9)
    assert usage.scores_prompts
    assert usage.of_prompts == spent


def test_scoring_with_a_gate_counts_all_segments() -> None:
    usage, ledger = usage_of(GATED)
    answers, scoring = usage.add_prompt(9)
    assert answers is not None
    assert scoring is not None
    ledger.record(scoring, "cmpl-x-0-score-1-abc", Spending(3, 1, 4))
    ledger.record(scoring, "cmpl-x-0-score-5-abc", Spending(1, 1, 4))
    # Still being scored: as far as the engine has reported.
    assert usage.of_prompts == usage.total == Spending(4, 2, 8)
    ledger.record(answers, "cmpl-x-0-abc", Spending(1, 1, 4))
    usage.add_tokens(0, 1)
    assert usage.of_prompts == Spending(9, 2, 8)
    assert usage.total == Spending(10, 3, 12)


def test_closing_forgets_everything() -> None:
    usage, ledger = usage_of(GATED)
    keys = [key for key in usage.add_prompt(9) if key is not None]
    for key in keys:
        ledger.record(key, "cmpl-x-0-abc", Spending(1, 1, 4))
    usage.close()
    for key in keys:
        ledger.record(key, "cmpl-x-0-abc", Spending(2, 2, 8))
        assert not ledger.histories(key)


MESSAGES: Any = [{"role": "user", "content": "t5 t9"}]
ASK: dict[str, Any] = {"model": "", "max_tokens": 6, "temperature": 0, "seed": 1}
OURS = {"thought_budget": 3, "ignore_eos": True}
RUNNING = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.slow
@pytest.mark.parametrize("is_chat", [False, True])
def test_usage_as_openai_counts_reasoning(n8_server: RunningServer, is_chat: bool) -> None:
    """With `--usage openai`: whole answers and streams, their last chunk and the others."""
    with OpenAI(base_url=f"{n8_server.url}/v1", api_key="none", max_retries=0) as client:

        def ask(**more: Any) -> Any:
            if is_chat:
                return client.chat.completions.create(
                    messages=MESSAGES, **ASK, extra_body=OURS, **more
                )
            return client.completions.create(prompt="t5 t9", **ASK, extra_body=OURS, **more)

        whole = ask().usage
        assert whole.completion_tokens == 6 * (1 + 3)
        assert whole.completion_tokens_details.reasoning_tokens == 6 * 3
        assert whole.total_tokens == whole.prompt_tokens + whole.completion_tokens
        assert "thought_tokens" not in whole.model_dump()
        *parts, last = ask(stream=True, stream_options=RUNNING)
        assert last.usage.model_dump(exclude_none=True) == whole.model_dump(exclude_none=True)
        assert not last.choices
    running = [part.usage for part in parts]
    assert running[-1] == last.usage
    for usage in running:
        reasoning = usage.completion_tokens_details.reasoning_tokens
        assert usage.completion_tokens * 3 == reasoning * 4
        assert usage.total_tokens == whole.prompt_tokens + usage.completion_tokens
        assert "thought_tokens" not in usage.model_dump()


@pytest.mark.slow
def test_without_thoughts_both_ways_count_the_same(
    n8_server: RunningServer, http: httpx.Client
) -> None:
    body = {"prompt": [5, 9], "max_tokens": 4, "ignore_eos": True, "thought_budget": 0}
    counts = {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    for url, added in (
        (n8_server.url, {"completion_tokens_details": {"reasoning_tokens": 0}}),
        (str(http.base_url), {"thought_tokens": 0}),
    ):
        usage = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["usage"]
        assert {k: v for k, v in usage.items() if v is not None} == counts | added
