"""Prompts: synthetic ones, and those of files."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from loadtest.errors import LoadTestError
from loadtest.traffic.datasets import DataSet
from loadtest.traffic.lengths import Constant, Lengths
from loadtest.traffic.plan import PromptPlan
from loadtest.traffic.schedule import session_of
from loadtest.traffic.seeds import rng_for
from loadtest.traffic.words import Vocabulary

DEFAULT_OUTPUT = Constant(64)


class Prompt(NamedTuple):
    """A prompt, the limit of its answer, and the expected answer, if there is one."""

    text: str
    max_tokens: int
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class PromptPosition:
    """The position of a prompt in a run: all that it may depend on."""

    seed: int
    cell: int
    repeat: int
    index: int


class Prompts(Protocol):
    """A source of prompts: the same prompt at the same position in every process."""

    @property
    def description(self) -> str:
        """The source in words."""
        ...

    def at(self, place: PromptPosition) -> Prompt: ...


@dataclass(frozen=True)
class SyntheticPrompts:
    """Random words. Lengths are the same in all cells of a repeat; words differ from cell to cell,
    so that no cell finds its prompts in the server's prefix cache."""

    vocabulary: Vocabulary
    input_lengths: Lengths
    output_lengths: Lengths
    prefix_length: int
    prefix_share: float

    @property
    def description(self) -> str:
        text = f"synthetic, lengths in {self.vocabulary.unit}: {self.input_lengths}"
        if self.input_lengths.least is None and self.vocabulary.opening > 1:
            text += f" ({self.vocabulary.opening} or more)"
        if self.prefix_share:
            text += f"; {self.prefix_share:.0%} begin with the same {self.prefix_length} more"
        return text

    def at(self, place: PromptPosition) -> Prompt:
        lengths = rng_for(place.seed, "lengths", place.repeat, place.index)
        length, max_tokens = self.input_lengths.draw(lengths), self.output_lengths.draw(lengths)
        shared = lengths.random() < self.prefix_share
        prefix = self.vocabulary.draw(rng_for(place.seed, "prefix"), self.prefix_length * shared)
        words = rng_for(place.seed, "text", place.cell, place.index)
        text = self.vocabulary.text(words, length, prefix)
        return Prompt(text, max_tokens)


def synthetic_prompts(plan: PromptPlan, vocabulary: Vocabulary) -> SyntheticPrompts:
    """Raises `LoadTestError` for lengths that no prompt has."""
    least = plan.input_lengths.least
    if least is not None and least < vocabulary.opening:
        raise LoadTestError(
            f"--prompt-tokens {plan.input_lengths}: the shortest prompt has {vocabulary.opening} "
            "tokens here, those included that the tokenizer or the chat's template adds; ask for "
            "as many, or give prompts of your own with --prompts"
        )
    return SyntheticPrompts(
        vocabulary,
        plan.input_lengths,
        plan.output_lengths or DEFAULT_OUTPUT,
        plan.prefix_length,
        plan.prefix_share,
    )


class Line(NamedTuple):
    """A prompt of a file."""

    text: str
    max_tokens: int | None
    expected: str | None


Reader = Callable[[list[dict[str, str]]], list[Line]]
"""The lines of a conversation."""


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of a file in a random order, again and again: the same order in all cells of a
    repeat."""

    description: str
    lines: Sequence[Line]
    output_lengths: Lengths
    group: int = 1
    """Consecutive lines that stay together: the turns of a conversation."""

    def at(self, place: PromptPosition) -> Prompt:
        order = _order(len(self.lines) // self.group, place.seed, place.repeat)
        session, turn = session_of(place.index, self.group)
        line = self.lines[order[session % len(order)] * self.group + turn]
        lengths = rng_for(place.seed, "lengths", place.repeat, place.index)
        max_tokens = line.max_tokens or self.output_lengths.draw(lengths)
        return Prompt(line.text, max_tokens, line.expected)


@functools.cache
def _order(number: int, seed: int, repeat: int) -> list[int]:
    order = list(range(number))
    rng_for(seed, "order", repeat).shuffle(order)
    return order


def file_prompts(plan: PromptPlan, count: Callable[[str], int]) -> FilePrompts:
    """Read the file or data set of a plan; raises `LoadTestError`. `count` gives the tokens of a
    text, for recorded answers, whose lengths become the limits of the new answers."""
    name = plan.table.name if plan.table else str(plan.path)
    conversation = functools.partial(
        _turns_of, count=None if plan.output_lengths else count, turns=plan.turns
    )
    has_turns = plan.source == "sharegpt"
    try:
        if plan.table is not None:
            has_turns = "conversation" in dict(plan.table.columns)
            lines = _read_table(plan.table, conversation)
        else:
            lines = _read_file(plan, conversation)
    except OSError as error:
        raise LoadTestError(f"prompts {name}: {error.strerror}") from error
    except ValueError as error:
        raise LoadTestError(f"prompts {name}: {error}") from error
    if not lines:
        raise LoadTestError(f"prompts {name}: there are none in it")
    group = plan.turns if has_turns else 1
    what = "prompts" if group == 1 else f"conversations of {group} turns"
    shown = plan.path.name if plan.path else name
    description = f"{shown}, {len(lines) // group} {what}"
    return FilePrompts(description, lines, plan.output_lengths or DEFAULT_OUTPUT, group)


def _read_file(plan: PromptPlan, conversation: Reader) -> list[Line]:
    assert plan.path is not None
    text = plan.path.read_text(encoding="utf-8")
    if plan.source == "sharegpt":
        return _read_sharegpt(text, conversation)
    return _read_jsonl(text, expected=plan.source == "answers")


def _read_table(table: DataSet, conversation: Reader) -> list[Line]:
    lines = []
    for number, row in enumerate(table.rows(), 1):
        try:
            lines += conversation(row["conversation"]) if "conversation" in row else [_cell(row)]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"row {number}: {error}") from error
    return lines


def _cell(row: dict[str, Any]) -> Line:
    """Of a row whose numbers may be texts (CSV), and whose expected answers may be numbers."""
    limit, expected = row.get("max_tokens"), row.get("expected")
    content = {
        "prompt": row["prompt"],
        "max_tokens": int(limit) if isinstance(limit, str) else limit,
        "expected": str(expected) if isinstance(expected, int | float) else expected,
    }
    return _line(content, with_expected="expected" in row)


def _read_jsonl(text: str, expected: bool = False) -> list[Line]:
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                lines.append(_line(json.loads(line), expected))
            except (ValueError, TypeError, KeyError) as error:
                form = '{"prompt": "…", "expected": "…"}' if expected else '{"prompt": "…"}'
                raise ValueError(
                    f"line {number} is not like {form}, with or without a max_tokens of 1 or "
                    f"more ({error})"
                ) from error
    return lines


def _line(content: dict[str, Any], with_expected: bool) -> Line:
    prompt, max_tokens = content["prompt"], content.get("max_tokens")
    expected = content["expected"] if with_expected else None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("prompt is no text")
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise ValueError(f"max_tokens is {max_tokens!r}")
    if with_expected and not (isinstance(expected, str) and expected.strip()):
        raise ValueError("expected is no text")
    return Line(prompt, max_tokens, expected)


def _read_sharegpt(text: str, conversation: Reader) -> list[Line]:
    """A JSON array, or JSONL."""
    whole = text.lstrip().startswith("[")
    lines = (json.loads(line) for line in text.splitlines() if line.strip())
    try:
        return [
            line
            for content in (json.loads(text) if whole else lines)
            for line in conversation(
                content["conversations"] if "conversations" in content else content["messages"]
            )
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            'not like [{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", '
            '"value": "…"}]}] or [{"messages": [{"role": "user", "content": "…"}, …]}] '
            f"({error!r})"
        ) from error


def _turns_of(
    conversation: list[dict[str, str]], count: Callable[[str], int] | None, turns: int
) -> list[Line]:
    """The first turns of a conversation, without a system's, and the lengths of their answers; none
    of one that has not as many."""
    said = [_said(turn) for turn in conversation if turn.get("from", turn.get("role")) != "system"][
        : 2 * turns
    ]
    if len(said) < 2 * turns or not all(said):
        return []
    return [
        Line(prompt, count(answer) if count else None, None)
        for prompt, answer in zip(said[::2], said[1::2], strict=True)
    ]


def _said(turn: dict[str, str]) -> str:
    return turn["value"] if "value" in turn else turn["content"]


def is_correct(text: str, expected: str) -> bool:
    """Whether an answer is the expected one or begins with it, without blanks around either.

    A longer answer must go on with a new word or number: `10` is the beginning of `10 apples.`, not
    of `100` or `10.5`.
    """
    return re.match(rf"{re.escape(expected.strip())}(?!\w|[.,]\d)", text.strip()) is not None
