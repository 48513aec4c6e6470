"""What `/v1/completions` and `/v1/chat/completions` take and give beyond vLLM's own protocol."""

from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, Field

from server.engine import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
    SamplingParams,
)
from server.errors import BadRequest
from server.fields import ThoughtFields, thinking


class ThinkingCompletionRequest(ThoughtFields, CompletionRequest):
    """vLLM's request for completions, with our fields."""

    text_field: ClassVar[str] = "prompt"

    @classmethod
    def check_text(cls, text: Any, data: dict[str, Any]) -> None:
        """What else a prompt may not be shows when it is tokenized, see
        `server.checks.check_prompt`."""
        if text is None and data.get("prompt_embeds") is None:
            raise BadRequest(
                "prompt is missing, must be a text, a list of token ids, or a list of either",
                "prompt",
            )
        if text in ("", []) or (isinstance(text, list) and ("" in text or [] in text)):
            raise BadRequest("a prompt is empty, must be at least one token", "prompt")
        for token_id in _token_ids(text):
            if token_id < 0:
                raise BadRequest(
                    f"token id {token_id} is out of range, must be from 0 up", "prompt"
                )

    @property
    def max_answer_tokens(self) -> int | None:
        """How long each answer may become at most; None = as long as fits."""
        return self.max_tokens

    @property
    def wanted_tokens(self) -> int:
        """How many tokens must fit behind the prompt: without `max_tokens`, one is enough."""
        return max(1, self.max_tokens or 1) if "max_tokens" in self._given else 1

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the prompt are wanted."""
        return self.prompt_logprobs is not None or bool(self.echo and self.logprobs is not None)

    def to_sampling_params(
        self, max_tokens: int, default_sampling_params: dict[str, Any] | None = None
    ) -> SamplingParams:
        """vLLM calls this once per prompt, in order."""
        prompt = self._thoughts.next_prompt()
        room = min(max_tokens, prompt.room_for_output)
        return thinking(super().to_sampling_params(room, default_sampling_params), prompt)


class ThinkingChatRequest(ThoughtFields, ChatCompletionRequest):
    """vLLM's request for chats, with our fields."""

    text_field: ClassVar[str] = "messages"

    @classmethod
    def check_text(cls, text: Any, data: dict[str, Any]) -> None:
        if text is None or text == []:
            raise BadRequest(
                "messages is missing or empty, must be a list of messages, each with a role and "
                "a content",
                "messages",
            )

    @property
    def max_answer_tokens(self) -> int | None:
        """How long each answer may become at most; None = as long as fits."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wanted_tokens(self) -> int:
        """How many tokens must fit behind the messages: where none are asked for, one is enough."""
        return max(1, self.max_answer_tokens or 1)

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the messages are wanted. In vLLM's chats `echo` implies
        them."""
        return self.prompt_logprobs is not None or self.echo

    def to_sampling_params(
        self, max_tokens: int, default_sampling_params: dict[str, Any]
    ) -> SamplingParams:
        """vLLM calls this once."""
        prompt = self._thoughts.next_prompt()
        room = min(max_tokens, prompt.room_for_output)
        return thinking(super().to_sampling_params(room, default_sampling_params), prompt)


ThinkingRequest: TypeAlias = ThinkingCompletionRequest | ThinkingChatRequest


class QuietStar(BaseModel):
    """How a response was thought about."""

    thought_budget: int = Field(description="The budget in force, per visible token.")
    thought_temperature: float = Field(description="The temperature in force.")
    thinking_token_budget: int | None = Field(description="The limit per completion, if any.")
    prompt_thought_tokens: int | None = Field(
        None,
        description="Thought tokens that the log-probabilities of the prompts took, where they "
        "were asked for. Not part of usage.",
    )


class Thought(BaseModel):
    """What was thought before one visible token."""

    token_ids: list[int] = Field(description="The sampled thought tokens, without START and END.")
    text: str
    mixing_weight: float = Field(
        description="How much the prediction after the thought counted: 0 = not at all, 1 = alone. "
        "Unbounded."
    )
    base_logprob: float = Field(
        description="Log-probability (nats) of the visible token by the plain prediction, as if "
        "nothing had been thought; before temperature, penalties, grammar and biases."
    )
    mixed_logprob: float = Field(
        description="The same by the prediction after the thought, which was in force: "
        "mixed_logprob - base_logprob is what the thought gained."
    )


class ChoiceThoughts(BaseModel):
    """What a choice has beyond vLLM's where its request asked for thoughts."""

    thoughts: list[Thought | None] | None = Field(
        None,
        description="One per completion token of the choice (in streams, of the chunk): null where "
        "none was thought (budget 0, or spent). Only with return_thoughts.",
    )
    prompt_thoughts: list[Thought | None] | None = Field(
        None,
        description="What was thought before each token of the prompt, null before the first. Only "
        "with return_thoughts and log-probabilities of the prompt (echo with logprobs, or "
        "prompt_logprobs).",
    )
    thoughts_truncated: bool | None = Field(
        None,
        description="True where the server had no room to keep all thoughts; the lost are null.",
    )


class ThinkingCompletionChoice(ChoiceThoughts, CompletionResponseChoice):
    """vLLM's choice, and its thoughts."""


class ThinkingCompletionResponse(CompletionResponse):
    """vLLM's response, and how it was thought about. In streams, `quiet_star` is in the first
    chunk."""

    quiet_star: QuietStar
    choices: list[ThinkingCompletionChoice]  # type: ignore[assignment]  # subclass, only ever read


class ThinkingChatChoice(ChoiceThoughts, ChatCompletionResponseChoice):
    """vLLM's choice, and its thoughts."""


class ThinkingChatResponse(ChatCompletionResponse):
    """vLLM's response, and how it was thought about. In streams, `quiet_star` is in the first
    chunk, which says the role."""

    quiet_star: QuietStar
    choices: list[ThinkingChatChoice]  # type: ignore[assignment]  # subclass, only ever read


def _token_ids(prompt: Any) -> Iterator[int]:
    for item in prompt if isinstance(prompt, list) else ():
        if isinstance(item, int):
            yield item
        else:
            yield from _token_ids(item)
