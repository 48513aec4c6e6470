"""A streamed answer: its tokens, when they arrived, and what is wrong with it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from loadtest.records import Failure

_DONE = b"[DONE]"


class Counting(StrEnum):
    """How the visible tokens of a chunk are counted."""

    TOKEN_IDS = "token ids"
    """The chunk lists its tokens: the count does not rely on the server's own."""
    RUNNING_USAGE = "running usage"
    """The usage in each chunk is the number of tokens so far."""
    CHUNKS = "chunks"
    """They cannot be counted: a chunk with text is taken for a token, and further tokens in the
    final usage are taken to have arrived with the last chunk."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """The server's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _Details | None = None


class _QuietStar(msgspec.Struct):
    thought_budget: int | None = None
    thought_threshold: float | None = None
    thoughts: int | None = None
    passes: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    quiet_star: _QuietStar | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Asked(NamedTuple):
    """What was asked for, to check the answer against."""

    tokens: int
    """`max_tokens`."""
    budget: int | None = None
    """None = no budget was sent, and thoughts are not checked."""
    threshold: float | None = None
    """None = no threshold was sent."""
    thought_limit: int | None = None
    """`thinking_token_budget`: of the whole answer."""


class Problem(NamedTuple):
    """What is wrong with an answer."""

    failure: Failure
    message: str


@dataclass
class Answer:
    """What has arrived. `token_times` are on the clock of the caller of `add`."""

    counting: Counting
    token_times: list[float] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    budget_in_force: int | None = None
    threshold_in_force: float | None = None
    thoughts: int | None = None
    """Tokens that were thought about, as the server counts them."""
    passes: int | None = None
    """As the server counts them."""
    ended: bool = False
    """Its end mark (`[DONE]`) has arrived."""
    error: str | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def thought_tokens(self) -> int | None:
        details = self.usage and self.usage.completion_tokens_details
        return details.reasoning_tokens if details else None

    def add(self, event: bytes, time: float) -> None:
        """Add the next event, which arrived at `time`."""
        if event == _DONE:
            self.ended = True
            return
        try:
            chunk = _decode(event)
        except msgspec.DecodeError as error:
            self.error = f"unreadable event {event[:200]!r}: {error}"
            return
        if chunk.error is not None:
            self.error = str(chunk.error)
        if chunk.usage is not None:
            self.usage = chunk.usage
        for choice in chunk.choices:
            self._add_choice(choice, chunk.usage, time)
        if chunk.quiet_star is not None:
            self._add_thoughts(chunk.quiet_star)

    def _add_thoughts(self, said: _QuietStar) -> None:
        if said.thought_budget is not None:
            self.budget_in_force = said.thought_budget
        if said.thought_threshold is not None:
            self.threshold_in_force = said.thought_threshold
        if self.finish_reason is not None:  # before that, counts are those of a part
            self.thoughts = self.thoughts if said.thoughts is None else said.thoughts
            self.passes = self.passes if said.passes is None else said.passes

    def _add_choice(self, choice: _Choice, usage: Usage | None, time: float) -> None:
        text = choice.text or (choice.delta and choice.delta.content) or ""
        if text:
            self.pieces.append(text)
        self.finish_reason = choice.finish_reason or self.finish_reason
        self.token_times += [time] * self._new_tokens(choice, usage, text)

    def _new_tokens(self, choice: _Choice, usage: Usage | None, text: str) -> int:
        match self.counting:
            case Counting.TOKEN_IDS:
                return len(choice.token_ids or ())
            case Counting.RUNNING_USAGE:
                so_far = usage.completion_tokens if usage else None
                return max(0, (so_far or 0) - len(self.token_times))
        return 1 if text else 0

    def complete(self) -> None:
        """Where tokens cannot be counted, add those that only the final usage counts, at the time
        of the last chunk."""
        counted = self.usage.completion_tokens if self.usage else None
        if self.counting is Counting.CHUNKS and counted is not None and self.token_times:
            missing = max(0, counted - len(self.token_times))
            self.token_times += [self.token_times[-1]] * missing


def find_problem(answer: Answer, asked: Asked) -> Problem | None:
    """What is wrong with an answer whose connection was not broken; None = nothing."""
    if answer.error is not None:
        return Problem(Failure.ERROR_IN_STREAM, answer.error)
    if not answer.ended:
        return Problem(Failure.TRUNCATED, "the stream ended without its end mark ([DONE])")
    if answer.finish_reason is None:
        return Problem(Failure.TRUNCATED, "the stream ended without a finish reason")
    if not answer.token_times:
        return Problem(Failure.EMPTY, "no visible token")
    return _count_problem(answer, asked) or _thought_problem(answer, asked)


def _count_problem(answer: Answer, asked: Asked) -> Problem | None:
    visible = len(answer.token_times)
    counted = answer.usage.completion_tokens if answer.usage else None
    if counted is not None and counted != visible:
        return Problem(
            Failure.MISCOUNTED, f"{visible} visible tokens arrived, usage says {counted}"
        )
    if visible > asked.tokens:
        return Problem(
            Failure.MISCOUNTED, f"{visible} visible tokens arrived, {asked.tokens} were allowed"
        )
    return None


def _thought_problem(answer: Answer, asked: Asked) -> Problem | None:
    threshold = answer.threshold_in_force
    if None not in (threshold, asked.threshold) and threshold != asked.threshold:
        return Problem(
            Failure.OVER_BUDGET,
            f"thought with a threshold of {threshold:g}, asked for {asked.threshold:g}",
        )
    return None if asked.budget is None else _budget_problem(answer, asked, asked.budget)


def _budget_problem(answer: Answer, asked: Asked, budget: int) -> Problem | None:
    in_force = answer.budget_in_force
    if in_force is not None and in_force != budget:
        return Problem(
            Failure.OVER_BUDGET, f"thought with a budget of {in_force}, asked for {budget}"
        )
    visible = len(answer.token_times)
    about = visible if answer.thoughts is None else min(answer.thoughts, visible)
    allowed, due = most_thoughts(asked, about), most_thoughts(asked, visible)
    thoughts = answer.thought_tokens or 0
    if thoughts > allowed:
        return Problem(Failure.OVER_BUDGET, f"{thoughts} thought tokens, {allowed} were allowed")
    if thoughts == 0 < due and not (answer.threshold_in_force or asked.threshold):
        return Problem(Failure.OVER_BUDGET, f"no thought tokens, {due} were asked for")
    return None


def most_thoughts(asked: Asked, visible: int) -> int:
    """The most thought tokens for so many visible ones: the budget before each of them, up to the
    limit of the whole answer."""
    total = (asked.budget or 0) * visible
    return total if asked.thought_limit is None else min(total, asked.thought_limit)
