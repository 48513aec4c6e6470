"""The requests that an engine is measured with, and the times of their answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

# Ids below are special tokens in every tokenizer here.
_FIRST_WORD = 4


@dataclass(frozen=True)
class Request:
    """One request: `tokens` visible tokens, a thought of `budget` tokens before each of which it is
    expected to save more than `threshold` nats, or before all, if that is 0. With a budget they may
    be given, not sampled: they are then those of `text`. `temperature` is that of the thought
    tokens and of the visible ones.
    """

    prompt: tuple[int, ...]
    budget: int
    tokens: int
    threshold: float = 0.0
    text: tuple[int, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True)
class Load:
    """`requests` are measured: all sent at once, or, with `gaps`, one after the other, so many
    seconds after the last answer. `background` requests are in the batch all the time: they are
    decoding before the measured ones are sent, and sent again whenever they end.
    """

    requests: tuple[Request, ...]
    background: tuple[Request, ...] = ()
    gaps: tuple[float, ...] = ()


class Times(NamedTuple):
    """When a request was sent and when its first and its last visible token came, in seconds."""

    sent: float
    first: float
    last: float
    tokens: int

    @property
    def to_first(self) -> float:
        return self.first - self.sent

    @property
    def per_token(self) -> float:
        """Mean time per visible token after the first one."""
        return (self.last - self.first) / (self.tokens - 1)


def per_token(times: Sequence[Times]) -> float:
    """Mean seconds per visible token of requests that ran in one batch."""
    return fmean(each.per_token for each in times)


def to_first(times: Sequence[Times]) -> float:
    """Mean seconds to the first visible token."""
    return fmean(each.to_first for each in times)


def random_requests(
    number: int, *, length: int, vocab_size: int, budget: int, tokens: int
) -> tuple[Request, ...]:
    """Requests with random prompts of `length` tokens, the same ones at every call."""
    draw = random.Random(length)
    return tuple(
        Request(
            tuple(draw.randrange(_FIRST_WORD, vocab_size - 2) for _ in range(length)),
            budget,
            tokens,
        )
        for _ in range(number)
    )
