"""From rows of a data set to documents as token ids: plain text, prompts with answers, and chats.

With `data.answers_only` a document says which of its tokens are learnt: those of answers. A chat is
written by the tokenizer's own chat template; its answers are what the assistant says, with whatever
the template puts behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from training.beginning import beginning_ids
from training.chat import ANSWERS, render_chat
from training.errors import UsageError
from training.trainer.recipe import DataConfig

Columns = Mapping[str, Sequence[Any]]
"""A batch of rows, by column."""


class Document(NamedTuple):
    """Token ids, and whether each is to be learnt."""

    ids: list[int]
    learnt: list[bool]

    def cut(self, start: int, window: int) -> "Document":
        """`window` tokens from `start` on."""
        part = slice(start, start + window)
        return Document(self.ids[part], self.learnt[part])


class _Text(NamedTuple):
    """A text, the parts of it that are answers, as [first, last) characters, and whether beginning
    and end of a text are still to be put around it.
    """

    text: str
    answers: list[tuple[int, int]]
    bare: bool


def document_reader(
    data: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> Callable[[Columns, Sequence[int]], list[Document]]:
    """Reads batches of rows, given with their numbers; raises `UsageError` for one that holds no
    text.
    """
    beginning = beginning_ids(tokenizer, data.beginning)
    end = [tokenizer.eos_token_id] if data.end_of_text else []

    def read(rows: Columns, numbers: Sequence[int]) -> list[Document]:
        texts = [_text_of(data, tokenizer, rows, at, numbers[at]) for at in range(len(numbers))]
        encoded = tokenizer(
            [text.text for text in texts],
            add_special_tokens=False,
            verbose=False,
            return_offsets_mapping=data.answers_only,
        )
        documents = []
        for at, text in enumerate(texts):
            ids = encoded["input_ids"][at]
            offsets = encoded["offset_mapping"][at] if data.answers_only else []
            learnt = _learnt(offsets, text.answers) if data.answers_only else [True] * len(ids)
            before, behind = (beginning, end) if text.bare else ([], [])
            documents.append(
                Document(
                    [*before, *ids, *behind],
                    [*[not data.answers_only] * len(before), *learnt, *[True] * len(behind)],
                )
            )
        return documents

    return read


def _text_of(
    data: DataConfig, tokenizer: PreTrainedTokenizerBase, rows: Columns, at: int, number: int
) -> _Text:
    content = rows[data.column][at]
    where = f"{data.path}: {data.column!r} of document {number}"
    if _is_chat(content):
        return _chat(content, tokenizer, where)
    if not isinstance(content, str):
        wanted = "is neither text nor messages" if isinstance(content, list) else "is not text"
        raise UsageError(f"{where} {wanted} but {content!r}")
    prompt = rows[data.prompt_column][at] if data.prompt_column else ""
    if not isinstance(prompt, str):
        raise UsageError(
            f"{data.path}: {data.prompt_column!r} of document {number} is not text but {prompt!r}"
        )
    return _Text(prompt + content, [(len(prompt), len(prompt) + len(content))], bare=True)


def _is_chat(content: Any) -> bool:
    return (
        isinstance(content, list)
        and len(content) > 0
        and all(
            isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in content
        )
    )


def _chat(messages: list[Any], tokenizer: PreTrainedTokenizerBase, where: str) -> _Text:
    """A chat as its template writes it."""
    whole = _rendered(messages, tokenizer, where)
    answers = []
    for number, turn in enumerate(messages):
        if turn["role"] == ANSWERS:
            before = _rendered(messages[:number], tokenizer, where, answering=True)
            until = _rendered(messages[: number + 1], tokenizer, where)
            if not (until.startswith(before) and whole.startswith(until)):
                raise UsageError(
                    f"{where}: the chat template writes earlier messages differently where later "
                    "ones follow, so that answers cannot be told from the rest; cut the chat into "
                    "rows that end with an answer"
                )
            answers.append((len(before), len(until)))
    return _Text(whole, answers, bare=False)


def _rendered(
    messages: list[Any], tokenizer: PreTrainedTokenizerBase, where: str, *, answering: bool = False
) -> str:
    try:
        return render_chat(messages, tokenizer, answering=answering)
    except UsageError as error:
        raise UsageError(f"{where} {error}") from None


def _learnt(offsets: Sequence[tuple[int, int]], answers: list[tuple[int, int]]) -> list[bool]:
    """Whether a token has characters of an answer."""
    return [any(begin < last and end > first for first, last in answers) for begin, end in offsets]
