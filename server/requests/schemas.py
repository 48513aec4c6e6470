"""Requests and responses of `/v1/completions` and `/v1/chat/completions`, where they go beyond
vLLM's.

Pure pydantic: nothing here depends on the engine or the queue (a test holds it to that), and no
request carries state of the server.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, Field

from quietstar_infer.config import EffortThresholds
from server.errors import BadRequest
from server.first_error import first_errors_only
from server.requests.thought_fields import ThoughtFields
from server.vllm_api import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
    UsageInfo,
)


@first_errors_only
class ThinkingCompletionRequest(ThoughtFields, CompletionRequest):
    """vLLM's request for completions, with our fields."""

    text_field: ClassVar[str] = "prompt"

    @classmethod
    def check_text(cls, text: Any, data: dict[str, Any]) -> None:
        """`validation.check_prompt` checks the rest, when the prompt has been tokenized."""
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
        """The largest length of each answer; None = as long as fits."""
        return self.max_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the request asks for log-probabilities of the prompt."""
        return self.prompt_logprobs is not None or bool(self.echo and self.logprobs is not None)


@first_errors_only
class ThinkingChatRequest(ThoughtFields, ChatCompletionRequest):
    """vLLM's request for chats, with our fields."""

    text_field: ClassVar[str] = "messages"

    # Of vLLM's values only those that have a meaning here.
    reasoning_effort: Literal["none", "low", "medium", "high"] | None = Field(
        None,
        description="none = do not think (thought_budget 0); low, medium and high = the "
        "thought_threshold that the checkpoint has for it, see /v1/models. thought_budget and "
        "thought_threshold themselves win. The chat template gets it, too.",
    )

    def effort_fields(self, efforts: EffortThresholds) -> Mapping[str, Any]:
        if self.reasoning_effort is None:
            return {}
        if self.reasoning_effort == "none":
            return {"thought_budget": 0}
        return {"thought_threshold": getattr(efforts, self.reasoning_effort)}

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
        """The largest length of each answer; None = as long as fits."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the request asks for log-probabilities of the messages. In vLLM's chats `echo`
        implies them."""
        return self.prompt_logprobs is not None or self.echo


ThinkingRequest: TypeAlias = ThinkingCompletionRequest | ThinkingChatRequest


class QuietStar(BaseModel):
    """How a response was thought about: the settings, and what was counted.

    In a stream the first chunk has the settings, and the chunks with `usage` have the counts, of
    the same tokens as their usage.
    """

    thought_budget: int = Field(description="The budget in force, per thought.")
    thought_temperature: float = Field(description="The temperature in force.")
    thought_threshold: float = Field(description="The threshold in force, in nats.")
    thinking_token_budget: int | None = Field(description="The limit per completion, if any.")
    gate: Literal["learned", "entropy"] | None = Field(
        description="What decided whether to think before a token: the checkpoint's gate, or, "
        "where it has none, the entropy of the base model's prediction. null: nothing, because "
        "the budget or the threshold is 0."
    )
    thoughts: int = Field(description="How many completion tokens were thought about.")
    passes: int = Field(
        description="Passes of the base model that the completion tokens took: one each, one for "
        "each thought token, and, where a gate decides, one more for each thought. Prefill is not "
        "counted."
    )
    prompt_thought_tokens: int | None = Field(
        None,
        description="Thought tokens sampled for the log-probabilities of the prompts, if these "
        "were asked for. Not part of usage.",
    )
    prompt_thoughts: int | None = Field(
        None, description="Likewise: how many tokens of the prompts were thought about."
    )
    prompt_passes: int | None = Field(
        None,
        description="Likewise: the passes that it took, prefill not counted; 0 without thoughts.",
    )


class Thought(BaseModel):
    """The thought before one visible token, or why there was none."""

    expected_gain: float = Field(
        description="How much the thought was expected to save, in nats, before it was thought. "
        "It is thought where this is above the threshold."
    )
    token_ids: list[int] = Field(
        description="The sampled thought tokens, without START and END; [] where there was no "
        "thought."
    )
    text: str
    mixing_weight: float | None = Field(
        description="Weight of the prediction after the thought: 0 = the base model's prediction "
        "alone, 1 = the one after the thought alone. Unbounded. null where there was no thought."
    )
    base_logprob: float = Field(
        description="Log-probability (nats) of the visible token by the base model's prediction, "
        "without the thought; before temperature, penalties, grammar and biases."
    )
    mixed_logprob: float = Field(
        description="The same by the mixed prediction, from which the token was sampled: "
        "mixed_logprob - base_logprob is the gain of the thought. Without one, they are equal."
    )


class ChoiceThoughts(BaseModel):
    """The fields that a choice has beyond vLLM's, if its request asked for thoughts."""

    thoughts: list[Thought | None] | None = Field(
        None,
        description="One per completion token of the choice (in streams, of the chunk); null for a "
        "token of which none was considered (budget 0, or spent). Only with return_thoughts.",
    )
    prompt_thoughts: list[Thought | None] | None = Field(
        None,
        description="The thought before each token of the prompt, null for the first. Only with "
        "return_thoughts and log-probabilities of the prompt (echo with logprobs, or "
        "prompt_logprobs).",
    )
    thoughts_truncated: bool | None = Field(
        None,
        description="True if the server had no room to keep all thoughts; the lost ones are null.",
    )


class ThinkingUsage(UsageInfo):
    """vLLM's usage, and the thought tokens of an answer.

    On a server started with `--usage openai`, `completion_tokens` includes them, and
    `completion_tokens_details.reasoning_tokens` says how many they are.
    """

    thought_tokens: int | None = Field(
        None,
        description="Thought tokens sampled before the completion's tokens, all choices together; "
        "not part of completion_tokens.",
    )


class ThinkingCompletionChoice(ChoiceThoughts, CompletionResponseChoice):
    """vLLM's choice, and its thoughts."""


class ThinkingCompletionResponse(CompletionResponse):
    """vLLM's response, and how it was thought about."""

    quiet_star: QuietStar
    usage: ThinkingUsage
    choices: list[ThinkingCompletionChoice]  # type: ignore[assignment]  # subclass, only ever read


class ThinkingChatChoice(ChoiceThoughts, ChatCompletionResponseChoice):
    """vLLM's choice, and its thoughts."""


class ThinkingChatResponse(ChatCompletionResponse):
    """vLLM's response, and how it was thought about."""

    quiet_star: QuietStar
    usage: ThinkingUsage
    choices: list[ThinkingChatChoice]  # type: ignore[assignment]  # subclass, only ever read


def _token_ids(prompt: Any) -> Iterator[int]:
    for item in prompt if isinstance(prompt, list) else ():
        if isinstance(item, int):
            yield item
        else:
            yield from _token_ids(item)
