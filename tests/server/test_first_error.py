"""Of each list and map only the first error is reported, however many there are."""

from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from server.requests.schemas import ThinkingChatRequest, ThinkingCompletionRequest, ThinkingRequest

NUMBER = 50_000
PROMPT: dict[str, Any] = {"prompt": "a"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
WRONG_MAP = {str(key): "x" for key in range(NUMBER)}
CASES: list[tuple[type[ThinkingRequest], dict[str, Any]]] = [
    (ThinkingChatRequest, {"messages": [{}] * NUMBER}),
    (ThinkingChatRequest, {"messages": [*CHAT["messages"], *[1] * NUMBER]}),
    (ThinkingChatRequest, CHAT | {"tools": [{}] * NUMBER}),
    (ThinkingChatRequest, CHAT | {"logit_bias": WRONG_MAP}),
    (ThinkingCompletionRequest, {"prompt": [1, "a"] * NUMBER}),
    (ThinkingCompletionRequest, {"prompt": [[1, "a"]] * 1000}),
    (ThinkingCompletionRequest, {"prompt": [[1, *["a"] * NUMBER]]}),
    (ThinkingCompletionRequest, PROMPT | {"stop": [1] * NUMBER}),
    (ThinkingCompletionRequest, PROMPT | {"bad_words": [1] * NUMBER}),
    (ThinkingCompletionRequest, PROMPT | {"stop_token_ids": ["a"] * NUMBER}),
    (ThinkingCompletionRequest, PROMPT | {"allowed_token_ids": [{}] * NUMBER}),
    (ThinkingCompletionRequest, PROMPT | {"logit_bias": WRONG_MAP}),
    (ThinkingCompletionRequest, PROMPT | {"vllm_xargs": {"x": [{}] * NUMBER}}),
    (ThinkingCompletionRequest, PROMPT | {"structured_outputs": {"choice": [1] * NUMBER}}),
]


@pytest.mark.parametrize(
    ("model", "body"), CASES, ids=lambda it: "-".join(it) if isinstance(it, dict) else None
)
def test_a_request_with_many_errors_has_few(
    model: type[ThinkingRequest], body: dict[str, Any]
) -> None:
    """Also as FastAPI parses it: as a part of another schema."""
    as_fastapi: Any = Annotated[model, Field(description="a body")]
    adapter: TypeAdapter[Any] = TypeAdapter(as_fastapi)
    for parse in (model.model_validate, adapter.validate_python):
        with pytest.raises(ValidationError) as caught:
            parse(body)
        # One for each type that an item may have, and for each field of these.
        assert caught.value.error_count() < 30
