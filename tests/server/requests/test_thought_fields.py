"""How a request thinks, by its fields and by its effort."""

from typing import Any

import pytest

from quietstar_infer.config import EffortThresholds
from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtLimits, ThoughtParams
from server.errors import BadRequest
from server.requests.foreign_fields import INSTEAD
from server.requests.schemas import ThinkingChatRequest, ThinkingCompletionRequest

LIMITS = ThoughtLimits(16, 12, default_threshold=0.3)
EFFORTS = EffortThresholds(low=0.7, medium=0.2, high=0.01)


def params_of_chat(query: dict[str, str] | None = None, **fields: Any) -> ThoughtParams:
    messages = [{"role": "user", "content": "t5"}]
    request = ThinkingChatRequest.model_validate({"messages": messages, **fields})
    request.add_query(list((query or {}).items()))
    return request.thought_params(LIMITS, EFFORTS)


@pytest.mark.parametrize(
    ("fields", "budget", "threshold"),
    [
        ({}, 12, 0.3),
        ({"reasoning_effort": None}, 12, 0.3),
        ({"reasoning_effort": "none"}, 0, 0.3),
        ({"reasoning_effort": "low"}, 12, 0.7),
        ({"reasoning_effort": "medium"}, 12, 0.2),
        ({"reasoning_effort": "high"}, 12, 0.01),
        # What is said in so many words wins.
        ({"reasoning_effort": "none", "thought_budget": 5}, 5, 0.3),
        ({"reasoning_effort": "none", "thought_threshold": 0.1}, 0, 0.1),
        ({"reasoning_effort": "low", "thought_threshold": 0}, 12, 0.0),
        ({"reasoning_effort": "low", "thought_budget": 0}, 0, 0.7),
        ({"reasoning_effort": "low", "vllm_xargs": {"thought_threshold": 2}}, 12, 2.0),
    ],
)
def test_the_effort_of_a_chat(fields: dict[str, Any], budget: int, threshold: float) -> None:
    assert params_of_chat(**fields) == ThoughtParams(budget, threshold=threshold)


def test_the_url_wins_over_the_effort() -> None:
    params = params_of_chat({"thought_threshold": "0.4"}, reasoning_effort="high")
    assert params.threshold == 0.4


def test_the_template_gets_the_effort_as_before() -> None:
    messages = [{"role": "user", "content": "t5"}]
    for effort, is_thinking in (("none", False), ("low", True)):
        request = ThinkingChatRequest.model_validate(
            {"messages": messages, "reasoning_effort": effort}
        )
        told = request.build_chat_params(None, "auto").chat_template_kwargs
        assert told["reasoning_effort"] == effort
        assert told["enable_thinking"] is is_thinking


@pytest.mark.parametrize("value", [-1, "0.1", True, [], pytest.param(10**400, id="no float")])
def test_a_bad_threshold_is_refused_by_name(value: Any) -> None:
    request = ThinkingCompletionRequest.model_validate({"prompt": "t5", "thought_threshold": value})
    with pytest.raises(ThoughtParamsError, match=r"thought_threshold is .*must be a finite number"):
        request.thought_params(LIMITS, EFFORTS)


@pytest.mark.parametrize("name", INSTEAD)
@pytest.mark.parametrize("request_type", [ThinkingCompletionRequest, ThinkingChatRequest])
def test_a_field_of_others_is_refused_with_the_right_one(
    name: str, request_type: type[ThinkingCompletionRequest]
) -> None:
    if name in request_type.model_fields:
        return
    given = {"prompt": "t5", "messages": [{"role": "user", "content": "t5"}], name: 1}
    del given["messages" if "prompt" in request_type.model_fields else "prompt"]
    with pytest.raises(BadRequest, match="unknown field") as refused:
        request_type.model_validate(given)
    assert INSTEAD[name] in str(refused.value)
    assert refused.value.parameter == name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"extra_body": {"thought_budget": 1}}, "fields in it at the top level"),
        ({"sampling_params": {"temperature": 0}}, "fields in it at the top level"),
        ({"options": {"num_predict": 3}}, "fields in it at the top level"),
        ({"extra_args": {"thought_budget": 3}}, "fields in it at the top level"),
        ({"anything": {"thought_budget": 3}}, "use thought_budget at the top level"),
        ({"anything": {"n_ahead": 3}}, "with n_ahead in it: use thought_budget"),
        ({"vllm_xargs": {"enable_thinking": False}}, "vllm_xargs.enable_thinking: use thought_thr"),
    ],
)
def test_fields_within_fields_are_not_ignored(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        ThinkingCompletionRequest.model_validate({"prompt": "t5", **fields})


def test_what_means_nothing_here_is_accepted_as_before() -> None:
    fields = {"options": {}, "metadata": {"team": "a"}, "extra_body": None, "provider": "x"}
    ThinkingCompletionRequest.model_validate({"prompt": "t5", **fields})


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ([("thought_budget", "1"), ("thought_budget", "2")], "thought_budget is 1, but 2 in the"),
        ([("n_ahead", "1")], "query.n_ahead: use thought_budget"),
        ([("temperature", "0")], "temperature cannot be given in the URL"),
    ],
)
def test_nothing_in_the_url_is_ignored(query: list[tuple[str, str]], words: str) -> None:
    request = ThinkingCompletionRequest.model_validate({"prompt": "t5"})
    with pytest.raises(BadRequest, match=words):
        request.add_query(query)
