"""Synthetic text with a given number of tokens."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OPENING = "the"
"""The first word of every text: tokenizers split a first word differently from later ones."""

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
    """Words and how many tokens each has after another word (one each, where tokens cannot be
    counted)."""

    costs: tuple[tuple[str, int], ...]
    opening: int
    """The tokens of `OPENING` alone, those included that the tokenizer adds to a text."""
    unit: str

    def text(self, rng: random.Random, length: int, prefix: Sequence[str] = ()) -> str:
        """A random text of `length` tokens on top of the prefix; a little shorter where no word
        fits the rest."""
        return " ".join([OPENING, *prefix, *self.draw(rng, length - self.opening)])

    def draw(self, rng: random.Random, length: int) -> list[str]:
        """Random words with `length` tokens in all."""
        drawn: list[str] = []
        words = list(self.costs)
        while words := [word for word in words if word[1] <= length]:
            # As many at once as fit whatever they are.
            several = rng.choices(words, k=max(1, length // max(cost for _, cost in words)))
            drawn += [word for word, _ in several]
            length -= sum(cost for _, cost in several)
        return drawn


def count_by_words() -> Vocabulary:
    """For servers where tokens cannot be counted: a word counts as one."""
    return Vocabulary(tuple((word, 1) for word in _WORDS), 1, "words")


def count_by_tokens(count: Callable[[str], int]) -> Vocabulary:
    """Count the tokens of each word. `count` gives the number of tokens of a text."""
    opening = count(OPENING)
    costs = [(word, count(f"{OPENING} {word}") - opening) for word in _WORDS]
    return Vocabulary(tuple((word, max(1, cost)) for word, cost in costs), opening, "tokens")
