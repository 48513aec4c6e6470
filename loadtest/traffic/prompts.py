"""Prompts: synthetic ones, and those of files."""

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from loadtest.errors import LoadTestError
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
    """Read the file of a plan; raises `LoadTestError`. `count` gives the tokens of a text, for
    recorded answers (ShareGPT), whose lengths become the limits of the new answers."""
    assert plan.path is not None
    readers: dict[str, Callable[[str], list[Line]]] = {
        "jsonl": _read_jsonl,
        "answers": functools.partial(_read_jsonl, expected=True),
        "sharegpt": functools.partial(
            _read_sharegpt, count=None if plan.output_lengths else count, turns=plan.turns
        ),
    }
    try:
        lines = readers[plan.source](plan.path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadTestError(f"prompts {plan.path}: {error.strerror}") from error
    except ValueError as error:
        raise LoadTestError(f"prompts {plan.path}: {error}") from error
    if not lines:
        raise LoadTestError(f"prompts {plan.path}: there are none in it")
    group = plan.turns if plan.source == "sharegpt" else 1
    what = "prompts" if group == 1 else f"conversations of {group} turns"
    description = f"{plan.path.name}, {len(lines) // group} {what}"
    return FilePrompts(description, lines, plan.output_lengths or DEFAULT_OUTPUT, group)


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


def _read_sharegpt(text: str, count: Callable[[str], int] | None, turns: int = 1) -> list[Line]:
    """The first turns of each conversation that has as many, and the lengths of their answers; a
    JSON array, or JSONL."""
    lines = []
    try:
        for conversation in _conversations(text):
            said = [_said(turn) for turn in conversation][: 2 * turns]
            if len(said) == 2 * turns and all(said):
                asked, answers = said[::2], said[1::2]
                lines += [
                    Line(prompt, count(answer) if count else None, None)
                    for prompt, answer in zip(asked, answers, strict=True)
                ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            'not like [{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", '
            '"value": "…"}]}] or [{"messages": [{"role": "user", "content": "…"}, …]}] '
            f"({error!r})"
        ) from error
    return lines


def _conversations(text: str) -> Iterator[list[dict[str, str]]]:
    """The turns of each conversation, without a system's."""
    whole = text.lstrip().startswith("[")
    lines = (json.loads(line) for line in text.splitlines() if line.strip())
    for content in json.loads(text) if whole else lines:
        said = content["conversations"] if "conversations" in content else content["messages"]
        yield [turn for turn in said if turn.get("from", turn.get("role")) != "system"]


def _said(turn: dict[str, str]) -> str:
    return turn["value"] if "value" in turn else turn["content"]


def is_correct(text: str, expected: str) -> bool:
    """Whether an answer is the expected one or begins with it, without blanks around either.

    A longer answer must go on with a new word or number: `10` is the beginning of `10 apples.`, not
    of `100` or `10.5`.
    """
    return re.match(rf"{re.escape(expected.strip())}(?!\w|[.,]\d)", text.strip()) is not None
