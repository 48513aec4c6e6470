"""Rows of a task as token ids, and which of the tokens are scored.

The accuracy of the official code is a product of probabilities among few tokens: of a number's
digits and the newline behind it among all digits and the newline, of a letter and its newline among
all letters and the newline. Other tokens of an answer (a space, a thousands separator) do not
count. Digits, letters and words are found by what the tokenizer makes of the answers, not by their
ids, so that any tokenizer will do.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from training.beginning import beginning_ids
from training.config import Beginning
from training.errors import UsageError
from training.evaluations.tasks.definitions import ChoiceTask, LetterTask, NumberTask, Row, TextTask
from training.evaluations.tasks.prompts import PromptFormat

# How tokenizers mark a token that begins with a space.
_SPACES = "▁Ġ "
PLAIN = PromptFormat()
"""A question alone."""
_DIGITS = re.compile(f"[{_SPACES}]?[0-9]+")


class Passage(NamedTuple):
    """A text whose tokens from `start` on are scored, also among the `allowed` tokens alone."""

    ids: list[int]
    start: int
    allowed: tuple[int, ...] = ()

    @property
    def num_scored(self) -> int:
        """The number of scored tokens."""
        return len(self.ids) - self.start


class Item(NamedTuple):
    """One row: its passages, and the number of the right one where one is to be chosen.

    `num_bytes` and `num_words` are a document's, for the perplexities of other programs.
    """

    passages: list[Passage]
    gold: int = 0
    num_bytes: int = 0
    num_words: int = 0


MakeItem = Callable[[Row], Item]


def item_maker(
    task: NumberTask | LetterTask | ChoiceTask | TextTask,
    tokenizer: PreTrainedTokenizerBase,
    document_tokens: int,
    form: PromptFormat = PLAIN,
) -> MakeItem:
    """From a row of the task to an item: questions put as `form` says, documents cut to so many
    tokens behind its beginning; what is made raises `UsageError` where the tokenizer does not go
    with the task."""
    if isinstance(task, NumberTask):
        return _number_item(task, tokenizer, form)
    if isinstance(task, LetterTask):
        return _letter_item(task, tokenizer, form)
    if isinstance(task, ChoiceTask):
        return _choice_item(task, tokenizer, form)
    return _text_item(task, tokenizer, document_tokens, form.beginning)


def answer_passage(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    answer: str,
    form: PromptFormat = PLAIN,
) -> Passage:
    """A prompt and its answer as `PromptFormat.answered`; the answer's tokens are scored."""
    return Passage(*form.answered(prompt, answer, tokenizer))


def _number_item(
    task: NumberTask, tokenizer: PreTrainedTokenizerBase, form: PromptFormat
) -> MakeItem:
    digits = {id_ for token, id_ in tokenizer.get_vocab().items() if _DIGITS.fullmatch(token)}

    def make(row: Row) -> Item:
        prompt = task.ask(row)
        passage = answer_passage(tokenizer, prompt, task.answer_text(row), form)
        words = [answer_passage(tokenizer, prompt, word, form) for word in task.all_answers()]
        allowed = (_where_they_differ(words) if words else digits) | _end(tokenizer, passage)
        return Item([passage._replace(allowed=tuple(sorted(allowed)))])

    return make


def _letter_item(
    task: LetterTask, tokenizer: PreTrainedTokenizerBase, form: PromptFormat
) -> MakeItem:
    def make(row: Row) -> Item:
        prompt, labels = task.ask(row), row["choices"]["label"]
        by_label = {
            label: answer_passage(tokenizer, prompt, task.answer_text(label), form)
            for label in labels
        }
        passage = by_label[row["answerKey"]]
        letters = _where_they_differ(list(by_label.values()))
        allowed = letters | _end(tokenizer, passage)
        return Item([passage._replace(allowed=tuple(sorted(allowed)))])

    return make


def _choice_item(
    task: ChoiceTask, tokenizer: PreTrainedTokenizerBase, form: PromptFormat
) -> MakeItem:
    def make(row: Row) -> Item:
        prompt = task.ask(row)
        answers = task.answer_texts(row)
        passages = [answer_passage(tokenizer, prompt, answer, form) for answer in answers]
        return Item(passages, gold=row["choices"]["label"].index(row["answerKey"]))

    return make


def _text_item(
    task: TextTask,
    tokenizer: PreTrainedTokenizerBase,
    document_tokens: int,
    beginning: Beginning,
) -> MakeItem:
    """The first token is predicted only from a beginning."""
    before = beginning_ids(tokenizer, beginning)

    def make(row: Row) -> Item:
        text = row[task.column]
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) > document_tokens:
            ids = ids[:document_tokens]
            text = tokenizer.decode(ids)
        passage = Passage(before + ids, max(1, len(before)))
        return Item([passage], num_bytes=len(text.encode()), num_words=len(text.split()))

    return make


def _end(tokenizer: PreTrainedTokenizerBase, passage: Passage) -> set[int]:
    """The newline that ends an answer, or the chat template's special token, where one does."""
    last = passage.ids[-1]
    ends = last in tokenizer.all_special_ids or tokenizer.decode([last]) == "\n"
    return {last} if ends else set()


def _where_they_differ(passages: Sequence[Passage]) -> set[int]:
    """The first token of each that is not the same in all; raises `UsageError` where one has
    none."""
    answers = [passage.ids[passage.start :] for passage in passages]
    for tokens in zip(*answers, strict=False):
        if len(set(tokens)) == len(answers):
            return set(tokens)
        if len(set(tokens)) > 1:
            break
    raise UsageError("the tokenizer does not tell the answers apart by one token each")
