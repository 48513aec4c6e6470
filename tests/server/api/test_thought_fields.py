"""How a request thinks, by its fields and by its effort."""

from typing import Any

import pytest

from quietstar_infer.config import EffortThresholds
from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtLimits, ThoughtParams
from server.api.schemas import ThinkingChatRequest, ThinkingCompletionRequest

LIMITS = ThoughtLimits(16, 12, default_threshold=0.3)
EFFORTS = EffortThresholds(low=0.7, medium=0.2, high=0.01)


def params_of_chat(query: dict[str, str] | None = None, **fields: Any) -> ThoughtParams:
    messages = [{"role": "user", "content": "t5"}]
    request = ThinkingChatRequest.model_validate({"messages": messages, **fields})
    request.add_query(query or {})
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
