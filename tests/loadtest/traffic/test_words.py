"""Synthetic text of a given length."""

import random
from collections.abc import Callable

from loadtest.traffic.words import OPENING, Vocabulary, count_by_tokens


def counted(costs: dict[str, int]) -> Callable[[str], int]:
    return lambda text: 1 + sum(costs.get(word, 2) for word in text.split())


def test_costs_are_measured_among_other_words() -> None:
    vocabulary = count_by_tokens(counted({"time": 1, OPENING: 1}))
    assert vocabulary.opening == 2  # with a token that the tokenizer adds
    assert dict(vocabulary.costs)["time"] == 1
    assert dict(vocabulary.costs)["year"] == 2


def test_text_of_words_of_many_costs_is_a_little_short_at_most() -> None:
    vocabulary = Vocabulary((("long", 7), ("longer", 9)), 2, "tokens")
    for length in range(2, 60):
        words = vocabulary.text(random.Random(length), length).split()
        assert words[0] == OPENING
        rest = length - 2 - sum(dict(vocabulary.costs)[word] for word in words[1:])
        assert 0 <= rest < 7
