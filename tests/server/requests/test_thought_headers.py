"""Our request fields as headers of HTTP."""

import pytest

from quietstar_infer.params import ThoughtLimits, ThoughtParams
from server.errors import BadRequest
from server.requests.schemas import ThinkingChatRequest
from server.requests.thought_headers import THOUGHT_HEADERS, fields_in_headers
from tests.server.requests.test_thought_fields import EFFORTS

LIMITS = ThoughtLimits(16, 12, default_threshold=0.3)


def test_the_names_of_the_headers() -> None:
    assert list(THOUGHT_HEADERS) == [
        "X-Thought-Budget",
        "X-Thought-Temperature",
        "X-Thought-Threshold",
        "X-Thinking-Token-Budget",
    ]


def test_headers_set_fields_in_any_case() -> None:
    headers = [("x-thought-budget", "8"), ("X-THOUGHT-THRESHOLD", "0.5"), ("x-other", "1")]
    found = {"thought_budget": 8, "thought_threshold": 0.5}
    assert fields_in_headers(headers, LIMITS) == found
    # A proxy may add what the client has sent already.
    assert fields_in_headers([*headers, ("x-thought-budget", "8")], LIMITS) == found
    assert fields_in_headers([], LIMITS) == {}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([("x-thought-budget", "99")], "the header x-thought-budget: thought_budget is 99, this"),
        ([("x-thought-budget", "")], "the header x-thought-budget: thought_budget is '', must be"),
        ([("x-thought-budget", "8.0")], "thought_budget is 8.0, must be a whole number"),
        ([("x-thought-threshold", "NaN")], "thought_threshold is nan, must be a finite number"),
        (
            [("x-thought-budget", "1"), ("x-thought-budget", "2")],
            "several values: give it once",
        ),
        (
            [("x-thought-bugdet", "1")],
            "unknown header x-thought-bugdet: those about thoughts",
        ),
        ([("x-thinking-budget", "1")], "unknown header x-thinking-budget"),
    ],
)
def test_mistakes_are_explained(headers: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        fields_in_headers(headers, LIMITS)
    assert message in str(caught.value)
    assert caught.value.parameter == headers[0][0]


ALIAS, HEADER = {"thought_budget": 4, "thought_threshold": 2.0}, {"thought_budget": 8}


@pytest.mark.parametrize(
    ("fields", "alias", "header", "budget", "threshold"),
    [
        ({}, {}, {}, 12, 0.3),
        ({}, ALIAS, {}, 4, 2.0),
        ({}, ALIAS, HEADER, 8, 2.0),
        ({"thought_budget": 1}, ALIAS, HEADER, 1, 2.0),
        ({"thought_threshold": 0}, ALIAS, HEADER, 8, 0.0),
        ({"reasoning_effort": "none"}, ALIAS, HEADER, 0, 2.0),
        ({"reasoning_effort": "low"}, ALIAS, HEADER, 8, 0.7),
        ({"vllm_xargs": {"thought_budget": 2}}, ALIAS, HEADER, 2, 2.0),
    ],
)
def test_the_request_wins_over_the_header_and_the_header_over_the_alias(
    fields: dict[str, object],
    alias: dict[str, object],
    header: dict[str, object],
    budget: int,
    threshold: float,
) -> None:
    messages = [{"role": "user", "content": "t5"}]
    request = ThinkingChatRequest.model_validate({"messages": messages, **fields})
    params = request.thought_params(LIMITS, EFFORTS, {**alias, **header})
    assert params == ThoughtParams(budget, threshold=threshold)
