"""Synthetic text with a given number of tokens."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OPENING = "the"
"""The first word of every text: at the beginning, tokenizers count differently."""

_TEXT = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work number night point
home water room mother area money story fact month lot right study book eye job word business
issue side kind head house service friend father power hour game line end member law car city
community name team minute idea body information back parent face level office door health person
art war history party result change morning reason research girl guy moment air teacher force
order river stone music
"""
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True)
class Vocabulary:
    """Words and what each of them costs behind another one, in tokens (or in words, where nobody
    counts tokens)."""

    costs: tuple[tuple[str, int], ...]
    opening: int
    """What a text of `OPENING` alone costs, the tokenizer's own additions included."""
    unit: str

    def text(self, rng: random.Random, length: int, prefix: Sequence[str] = ()) -> str:
        """A random text of `length`, which comes on top of that of the prefix; a little shorter
        where no word fits the rest."""
        return " ".join([OPENING, *prefix, *self.draw(rng, length - self.opening)])

    def draw(self, rng: random.Random, length: int) -> list[str]:
        """Random words of `length` together."""
        drawn: list[str] = []
        words = list(self.costs)
        while words := [word for word in words if word[1] <= length]:
            # As many at once as surely fit.
            several = rng.choices(words, k=max(1, length // max(cost for _, cost in words)))
            drawn += [word for word, _ in several]
            length -= sum(cost for _, cost in several)
        return drawn


def count_by_words() -> Vocabulary:
    """Where tokens cannot be counted: a word is one."""
    return Vocabulary(tuple((word, 1) for word in _WORDS), 1, "words")


def count_by_tokens(count: Callable[[str], int]) -> Vocabulary:
    """Measure what each word costs. `count` gives the number of tokens of a text."""
    opening = count(OPENING)
    costs = [(word, count(f"{OPENING} {word}") - opening) for word in _WORDS]
    return Vocabulary(tuple((word, max(1, cost)) for word, cost in costs), opening, "tokens")
