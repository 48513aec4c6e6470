"""How a question is put: alone, after examples with their answers, or as a chat.

The examples are the same before every question and end with an empty line each. In a chat every
question is what the user says and every answer what the assistant says, without white space around
it; the chat template writes the rest, and what it puts behind an answer ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from training.beginning import text_ids
from training.chat import ANSWERS, Message, render_chat
from training.config import Beginning
from training.errors import UsageError


class Example(NamedTuple):
    """A question, and its right answer as it follows the question."""

    question: str
    answer: str


class AnsweredIds(NamedTuple):
    """Token ids of a question and its answer, whose tokens begin at `start`."""

    ids: list[int]
    start: int


@dataclass(frozen=True)
class PromptFormat:
    """What stands around a question. `beginning`: before the whole text; before a chat its template
    alone decides.
    """

    beginning: Beginning = "tokenizer"
    examples: tuple[Example, ...] = ()
    chat: bool = False

    def prompt(self, question: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text that an answer follows. Raises `UsageError` without a chat template."""
        if self.chat:
            return _chat_text(self._messages(question), tokenizer, answering=True)
        shown = [f"{one.question}{one.answer}".rstrip() + "\n\n" for one in self.examples]
        return "".join(shown) + question

    def ids(self, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """A prompt, or more, as token ids."""
        return text_ids(tokenizer, text, "nothing" if self.chat else self.beginning)

    def answered(
        self, question: str, answer: str, tokenizer: PreTrainedTokenizerBase
    ) -> AnsweredIds:
        """Question and answer, tokenized together.

        White space at the end of a prompt belongs to the answer, as in lm-evaluation-harness:
        tokenizers write a space and the word behind it as one token. In a chat it is the template's
        and belongs to the prompt, if the tokenizer does not do so; what the template puts behind an
        answer stands for white space at its end. Raises `UsageError` where no token ends with the
        prompt.
        """
        prompt = self.prompt(question, tokenizer)
        whole = prompt + (answer.strip() if self.chat else answer)
        ids = self.ids(whole, tokenizer)
        for asked in (prompt, prompt.rstrip()) if self.chat else (prompt.rstrip(),):
            before = self.ids(asked, tokenizer)
            if ids[: len(before)] == before:
                break
        else:
            raise UsageError(
                f"the tokenizer joins the end of the prompt, {asked[-20:]!r}, with the beginning "
                "of the answer; begin the answer with a space"
            )
        if not before:
            raise UsageError("no token precedes the answer: the prompt is empty")
        if self.chat and answer != answer.rstrip():
            said = [*self._messages(question), _message(ANSWERS, answer.strip())]
            behind = _chat_text(said, tokenizer).removeprefix(whole)
            ids += tokenizer.encode(behind, add_special_tokens=False)[:1]
        return AnsweredIds(ids, len(before))

    def _messages(self, question: str) -> list[Message]:
        turns = [
            (_message("user", one.question), _message(ANSWERS, one.answer.strip()))
            for one in self.examples
        ]
        return [*(message for turn in turns for message in turn), _message("user", question)]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _chat_text(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, answering: bool = False
) -> str:
    try:
        return render_chat(messages, tokenizer, answering=answering)
    except UsageError as error:
        raise UsageError(f"--chat: a question {error}") from None
