"""What is changed of the engine's outputs."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

from server.api.engine_outputs import with_prompt_logprobs, without_tokens
from server.vllm_api import RequestOutput


async def outputs(*fields: dict[str, Any]) -> AsyncGenerator[RequestOutput]:
    for each in fields:
        yield cast(RequestOutput, SimpleNamespace(**each))


async def test_each_output_has_the_scores_of_the_prompt() -> None:
    """Of two choices, the second of which has its first token in the first one's second output."""
    scores = [None, {5: -1.0}]
    engine = outputs(
        {"prompt_logprobs": scores}, {"prompt_logprobs": []}, {"prompt_logprobs": None}
    )
    found = [output.prompt_logprobs async for output in with_prompt_logprobs(engine)]
    assert found == [scores] * 3


async def test_a_request_for_no_tokens_gets_none() -> None:
    sampled = SimpleNamespace(
        text=" a", token_ids=[3], logprobs=[{3: -1.0}], cumulative_logprob=-1.0
    )
    unscored = SimpleNamespace(text=" b", token_ids=[4], logprobs=None, cumulative_logprob=None)
    engine = outputs({"outputs": [sampled, unscored]})
    (output,) = [output async for output in without_tokens(engine)]
    assert [(it.text, it.token_ids, it.logprobs) for it in output.outputs] == [
        ("", [], []),
        ("", [], None),
    ]
