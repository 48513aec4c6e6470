"""Chats as text, written by the tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from training.errors import UsageError

Message: TypeAlias = Mapping[str, str]
"""`role` and `content`."""
ANSWERS = "assistant"
"""The role that answers."""


def render_chat(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, answering: bool = False
) -> str:
    """The messages as one text; `answering`: with what the template puts before the next answer.

    Raises `UsageError`, a sentence that begins with a verb, where there is no template, or where it
    cannot write these messages.
    """
    if tokenizer.chat_template is None:
        raise UsageError("is a chat, but the model's tokenizer has no chat template")
    if not messages:
        return ""
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=answering
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UsageError(f"is a chat that the chat template cannot write: {error}") from None
    return str(text)
