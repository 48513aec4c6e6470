"""A streamed answer: its reasoning and visible tokens, and what is wrong with it.

Reasoning arrives in a field of its own (`reasoning_content`, `reasoning` or `thinking`, of a chat's
delta or of a completion's choice), or as text that begins with `<think>`, until `</think>`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from loadtest.client.channels import Channels, split_tokens
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
    final usage are taken to have arrived with the last chunk of their kind."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None

    @property
    def thought(self) -> str:
        """The text of whichever field the server fills; some send objects beside it."""
        fields = (self.reasoning_content, self.reasoning, self.thinking)
        return next((text for text in fields if text and isinstance(text, str)), "")


class _Choice(_Delta):
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
    thought_tokens: int | None = None
    """Beside `completion_tokens`, where a server counts them apart (ours)."""

    @property
    def reported_thoughts(self) -> int | None:
        """Thought or reasoning tokens, wherever they are counted."""
        details = self.completion_tokens_details
        inside = details.reasoning_tokens if details else None
        return inside if self.thought_tokens is None else self.thought_tokens


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
    """What has arrived. Times are on the clock of the caller of `add`."""

    counting: Counting
    token_times: list[float] = field(default_factory=list)
    """Of visible tokens."""
    reasoning_times: list[float] = field(default_factory=list)
    """Of reasoning tokens that the stream shows."""
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
    _channels: Channels = field(default_factory=Channels)
    _undecided: list[float] = field(default_factory=list)
    """Of tokens without a text, before the first text: those of the channel that it is in."""
    _apart: bool = False
    """The running usage leaves reasoning tokens out of `completion_tokens`."""

    @property
    def text(self) -> str:
        """What is visible."""
        return self._channels.visible.text

    @property
    def thought_tokens(self) -> int | None:
        """As the usage counts them, else as the stream shows them; None where neither does."""
        reported = self._reported_thoughts
        return (len(self.reasoning_times) or None) if reported is None else reported

    @property
    def ended_thinking(self) -> bool:
        """Whether it was cut at its length before its first visible token."""
        return (
            self.finish_reason == "length"
            and not self.token_times
            and bool(self.thought_tokens or self.reasoning_times)
        )

    @property
    def arrivals(self) -> list[float]:
        """Times of all tokens, reasoning first."""
        return [*self.reasoning_times, *self.token_times]

    @property
    def _reported_thoughts(self) -> int | None:
        reported = self.usage.reported_thoughts if self.usage else None
        # Stock vLLM counts none where the prompt opens the reasoning, as many chat templates do.
        return None if reported == 0 and self.reasoning_times else reported

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
        delta = choice.delta or choice
        text = choice.text or delta.content or ""
        thought, shown = self._channels.add(delta.thought, text)
        self.finish_reason = choice.finish_reason or self.finish_reason
        if self._channels.began and self._undecided:
            self._settle()
        if self.counting is Counting.CHUNKS:
            new = (bool(thought) + bool(shown)) or bool(text)
        elif self.counting is Counting.TOKEN_IDS:
            new = len(choice.token_ids or ())
        else:
            new = self._newly_used(usage, bool(thought), bool(shown))
        reasoning, visible = split_tokens(new, len(thought), len(shown), self._channels.is_thinking)
        if reasoning + visible and not self._channels.began:
            self._undecided += [time] * visible
            return
        self.reasoning_times += [time] * reasoning
        self.token_times += [time] * visible

    def _settle(self) -> None:
        """Give the tokens before the first text to the channel that it is in."""
        times = self.reasoning_times if self._channels.thinks_first else self.token_times
        times += self._undecided
        self._undecided = []

    def _newly_used(self, usage: Usage | None, thought: bool, visible: bool) -> int:
        """The new tokens of a chunk by the running usage. Where that leaves reasoning out of
        `completion_tokens`, its count of reasoning tokens, or else the chunk, says how many."""
        if usage is None:
            return 0
        so_far = usage.completion_tokens or 0
        before = len(self.token_times) + len(self._undecided)
        hidden = usage.reported_thoughts or 0
        if not (self.reasoning_times or thought) and so_far - hidden >= before:
            so_far -= hidden if usage.thought_tokens is None else 0
        self._apart |= thought and not visible and so_far <= before
        if not self._apart:
            return max(0, so_far - before - len(self.reasoning_times))
        if thought and not visible:
            return max(1, (self._reported_thoughts or 0) - len(self.reasoning_times))
        return max(0, so_far - before)

    def complete(self) -> None:
        """At the end of the stream. Where tokens cannot be counted, add those that only the final
        usage counts, at the time of the last chunk of their kind."""
        self._channels.finish()
        self._settle()
        counted = self.usage.completion_tokens if self.usage else None
        if self.counting is not Counting.CHUNKS or counted is None:
            return
        thoughts, visible = self._in_usage(counted)
        for times, number in ((self.reasoning_times, thoughts), (self.token_times, visible)):
            if times:
                times += [times[-1]] * max(0, number - len(times))

    def _in_usage(self, counted: int) -> tuple[int, int]:
        """Reasoning and visible tokens by the usage. Where it does not tell them apart, those that
        are missing are shared out in proportion to the characters."""
        thoughts = self._reported_thoughts
        if thoughts is None:
            if counted < len(self.arrivals):  # fewer than chunks: without reasoning
                return len(self.reasoning_times), counted
            missing = counted - len(self.arrivals)
            share = self._channels.thought_share
            more = round(missing * share)
            return len(self.reasoning_times) + more, len(self.token_times) + missing - more
        said_apart = self.usage is not None and self.usage.thought_tokens is not None
        apart = said_apart or counted - thoughts < len(self.token_times)
        return thoughts, counted if apart else counted - thoughts


def find_problem(answer: Answer, asked: Asked) -> Problem | None:
    """What is wrong with an answer whose connection was not broken; None = nothing."""
    if answer.error is not None:
        return Problem(Failure.ERROR_IN_STREAM, answer.error)
    if not answer.ended:
        return Problem(Failure.TRUNCATED, "the stream ended without its end mark ([DONE])")
    if answer.finish_reason is None:
        return Problem(Failure.TRUNCATED, "the stream ended without a finish reason")
    if not answer.token_times and not answer.ended_thinking:
        after = f" after {len(answer.reasoning_times)} reasoning tokens"
        return Problem(Failure.EMPTY, "no visible token" + after * bool(answer.reasoning_times))
    return _count_problem(answer, asked) or _thought_problem(answer, asked)


def _count_problem(answer: Answer, asked: Asked) -> Problem | None:
    visible, reasoning = len(answer.token_times), len(answer.reasoning_times)
    counted = answer.usage.completion_tokens if answer.usage else None
    # Usage counts reasoning as completion tokens (OpenAI, vLLM), or apart from them (ours).
    right = {visible, visible + reasoning}
    if answer.usage is not None and answer.usage.thought_tokens is None:
        right.add(visible + (answer.thought_tokens or 0))
    if counted is not None and counted not in right:
        arrived = f"{visible} visible tokens arrived"
        if reasoning:
            arrived = f"{reasoning} reasoning and {arrived}"
        return Problem(Failure.MISCOUNTED, f"{arrived}, usage says {counted}")
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
