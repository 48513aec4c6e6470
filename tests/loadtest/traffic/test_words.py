"""Synthetic text of a given length."""

import random
from collections.abc import Callable

from loadtest.traffic.words import OPENINGS, Vocabulary, count_by_tokens


def counted(costs: dict[str, int]) -> Callable[[str], int]:
    return lambda text: 1 + sum(costs.get(word, 2) for word in text.split())


def test_costs_are_measured_among_other_words() -> None:
    vocabulary = count_by_tokens(counted({"time": 1, OPENINGS[1]: 1}))
    assert vocabulary.opening == 2  # with a token that the tokenizer adds
    assert vocabulary.first == OPENINGS[1]  # the one of fewest tokens
    assert dict(vocabulary.costs)["time"] == 1
    assert dict(vocabulary.costs)["year"] == 2


def test_text_of_words_of_many_costs_is_a_little_short_at_most() -> None:
    vocabulary = Vocabulary((("long", 7), ("longer", 9)), 2, "tokens")
    for length in range(2, 60):
        words = vocabulary.text(random.Random(length), length).split()
        assert words[0] == OPENINGS[0]
        rest = length - 2 - sum(dict(vocabulary.costs)[word] for word in words[1:])
        assert 0 <= rest < 7


def test_text_is_exact_where_a_word_has_one_token() -> None:
    count = counted({"time": 1, OPENINGS[0]: 1})
    vocabulary = count_by_tokens(count)
    assert vocabulary.is_exact
    for length in range(2, 60):
        assert count(vocabulary.text(random.Random(length), length)) == length


def test_words_of_one_token_each_take_few_counts() -> None:
    """They may be requests to a server."""
    counts = []

    def count(text: str) -> int:
        counts.append(text)
        return len(text.split())

    assert {cost for _, cost in count_by_tokens(count).costs} == {1}
    assert len(counts) <= len(OPENINGS) + 1
