"""Synthetic text with a given number of tokens."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OPENINGS = ("the", "a", "in", "I")
"""Of these, the one of fewest tokens is the first word of every text: tokenizers split a first word
differently from later ones."""

_TEXT = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work number night point
home water room mother area money story fact month lot right study book eye job word business
issue side kind head house service friend father power hour game line end member law car city
community name team minute idea body information back parent face level office door health person
art war history party result change morning reason research girl guy moment air teacher force
order river stone music a and in to is at on has
"""
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True)
class Vocabulary:
    """Words and how many tokens each has after another word (one each, where tokens cannot be
    counted)."""

    costs: tuple[tuple[str, int], ...]
    opening: int
    """The tokens of the first word alone, those included that the tokenizer, or a chat's template,
    adds: no text is shorter."""
    unit: str
    first: str = OPENINGS[0]

    def text(self, rng: random.Random, length: int, prefix: Sequence[str] = ()) -> str:
        """A random text of `length` tokens on top of the prefix; a little shorter where no word
        fits the rest, longer where the first word alone is."""
        return " ".join([self.first, *prefix, *self.draw(rng, length - self.opening)])

    @property
    def is_exact(self) -> bool:
        """Whether there is a text of every length from `opening` up."""
        return any(cost == 1 for _, cost in self.costs)

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
    opening, first = min((count(word), order, word) for order, word in enumerate(OPENINGS))[::2]
    costs = _costs(count, first, opening, _WORDS)
    return Vocabulary(tuple(zip(_WORDS, costs, strict=True)), opening, "tokens", first)


def _costs(
    count: Callable[[str], int], first: str, opening: int, words: Sequence[str]
) -> list[int]:
    """The tokens of each word. Few counts where most words have one token: they may be requests."""
    total = count(" ".join([first, *words])) - opening
    if len(words) == 1:
        return [max(1, total)]
    if total == len(words):
        return [1] * len(words)
    middle = len(words) // 2
    halves = words[:middle], words[middle:]
    return [cost for half in halves for cost in _costs(count, first, opening, half)]
