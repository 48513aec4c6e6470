"""The first call of a chat client, which sends no field of ours, to the demonstration."""

from typing import Any

import pytest
from openai import OpenAI

from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

# What the model learned to finish; the answer is 10, and without thoughts it says another.
PROBLEM = (
    "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples "
    "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday Ben "
    "has"
)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": PROBLEM}],
        [{"role": "user", "content": [{"type": "text", "text": PROBLEM}]}],
        [
            {"role": "system", "content": "You are a helpful assistant. "},
            {"role": "user", "content": PROBLEM},
        ],
    ],
)
def test_a_chat_continues_its_text(demo_server: RunningServer, messages: Any) -> None:
    with OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="demo", messages=messages, temperature=0)
        assert answer.choices[0].message.content == " 10 apples."
        assert answer.choices[0].finish_reason == "stop"
        stream = client.chat.completions.create(
            model="demo", messages=messages, temperature=0, stream=True
        )
        parts = [part.choices[0].delta.content or "" for part in stream]
        assert "".join(parts) == " 10 apples."


def test_its_messages_are_one_text(demo_server: RunningServer) -> None:
    with OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        begun: Any = [
            {"role": "user", "content": "Ben has 7 apples."},
            {"role": "assistant", "content": " On Monday he finds 5."},
            {"role": "user", "content": " On Sunday Ben has"},
        ]
        chat = client.chat.completions.create(
            model="demo", messages=begun, max_tokens=1, extra_body={"return_token_ids": True}
        )
        text = client.completions.create(
            model="demo",
            prompt="".join(message["content"] for message in begun),
            max_tokens=1,
            extra_body={"return_token_ids": True},
        )
    assert chat.model_dump()["prompt_token_ids"] == text.choices[0].model_dump()["prompt_token_ids"]
