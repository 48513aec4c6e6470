"""The corpus: deterministic, split without overlap, and right."""

import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from training.demo.corpus.documents import (
    FAMILIES,
    FILLER,
    CorpusConfig,
    aside,
    documents,
    documents_without_asides,
)
from training.demo.corpus.problems import (
    LONGEST_WORKING,
    Problem,
    held_out_problems,
    is_held_out,
)
from training.demo.corpus.stories import make_story

DIGITS_AFTER = {
    "up": "1234567890",
    "down": "9012345678",
    "hop": "3456789012",
    "triple": "0369258147",
    "flip": "9876543210",
    "swap": "1032547698",
    "rest": "0123456789",
}
"""What each dial operation makes of 0 to 9, written out by hand."""


def solve_dial(prompt: str) -> list[int]:
    """Running values, read from the text alone."""
    found = re.fullmatch(r"\w+ has the dial at (\d): ((?:\w+ ?)+)\. Now it shows", prompt)
    assert found
    digit, values = found[1], []
    for operation in found[2].split():
        digit = DIGITS_AFTER[operation][int(digit)]
        values.append(int(digit))
    return values


def solve_story(prompt: str) -> list[int]:
    """Totals after each day, read from the text alone."""
    first, *days, _ = prompt.split(". ")
    total = int(first.split()[2])
    totals = []
    for day in days:
        found = re.fullmatch(r"On \w+day s?he (\w+) (\w+)", day)
        assert found
        verb, amount = found.groups()
        change = total // 2 if amount == "half" else int(amount) if amount.isdigit() else 0
        if verb in ("doubles", "triples"):
            total *= {"doubles": 2, "triples": 3}[verb]
        elif verb in ("finds", "buys", "picks", "gets"):
            total += change
        elif verb != "keeps":
            total -= change
        totals.append(total)
    return totals


SOLVERS: dict[str, Callable[[str], list[int]]] = {"dial": solve_dial, "story": solve_story}


def some_problems(family: str, number: int = 500) -> list[Problem]:
    rng = random.Random(7)
    return [FAMILIES[family](rng) for _ in range(number)]


def test_same_seed_same_documents() -> None:
    assert list(itertools.islice(documents(3), 50)) == list(itertools.islice(documents(3), 50))
    assert list(itertools.islice(documents(3), 50)) != list(itertools.islice(documents(4), 50))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_working_are_right(family: str) -> None:
    for problem in some_problems(family):
        values = SOLVERS[family](problem.prompt)
        said = [int(piece) for piece in problem.working if piece.strip().isdigit()]
        assert said == values
        assert problem.answer == f" {values[-1]}"
        # `done` is where the answer is known for good.
        assert problem.working[problem.done - 1] == problem.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_working_fills_the_same_number_of_pieces(family: str) -> None:
    for problem in some_problems(family):
        assert len(problem.working) == LONGEST_WORKING
        assert 1 <= problem.steps <= problem.done <= LONGEST_WORKING
        assert all(piece.startswith(" ") for piece in problem.working)


def test_one_thing_is_singular() -> None:
    for problem in some_problems("story"):
        assert re.fullmatch(r" [a-z]+\.", problem.ending)
        assert problem.ending.endswith("s.") == (problem.answer != " 1")


@pytest.mark.parametrize("family", FAMILIES)
def test_training_never_sees_a_held_out_problem(family: str) -> None:
    rng = random.Random(0)
    trained_on = {draw_problem(FAMILIES[family], rng, held_out=False).key for _ in range(5000)}
    held_out = list(itertools.islice(held_out_problems(FAMILIES[family], seed=0), 500))
    keys = {problem.key for problem in held_out}
    assert len(keys) == 500
    assert not keys & trained_on
    assert all(is_held_out(problem) and problem.steps >= 2 for problem in held_out)


def test_no_document_asks_a_held_out_problem() -> None:
    held_out = {
        problem.prompt.split(" ", 1)[1]
        for make in FAMILIES.values()
        for problem in itertools.islice(held_out_problems(make, seed=0), 1000)
    }
    for text in itertools.islice(documents(0), 1500):
        assert not any(prompt in text for prompt in held_out)


def test_the_split_does_not_depend_on_names() -> None:
    by_key: dict[str, set[bool]] = {}
    for problem in some_problems("dial", 3000):
        if problem.steps == 1:
            by_key.setdefault(problem.key, set()).add(is_held_out(problem))
    assert all(len(sides) == 1 for sides in by_key.values())


def test_asides() -> None:
    problem = some_problems("dial", 1)[0]
    whole = CorpusConfig(cut_anywhere=0, cut_when_done=0, full_filler=1, most_filler=2)
    expected = "---" + "".join(problem.working) + FILLER * 2 + "---"
    assert aside(problem, whole, random.Random(0)) == expected

    cut = CorpusConfig(cut_anywhere=0, cut_when_done=1)
    for number in range(100):
        pieces = aside(problem, cut, random.Random(number)).strip("-").split()
        assert problem.done <= len(pieces) <= LONGEST_WORKING
        assert f" {pieces[-1]}" == problem.answer


def test_a_corpus_in_which_nobody_thinks_aloud() -> None:
    texts = list(itertools.islice(documents_without_asides(1000), 300))
    assert not any("---" in text or "Show your work" in text for text in texts)
    assert sum("On Sunday" in text for text in texts) > 100


def test_totals_are_hard_to_guess() -> None:
    """Neither the likeliest total nor the likeliest after the same last days says much."""
    rng = random.Random(0)
    asked = [p for p in (make_story(rng) for _ in range(12_000)) if p.steps >= 2]
    for days in (0, 1, 2):
        totals: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for problem in asked:
            events = problem.key.split()[1 : problem.steps + 1]
            totals[tuple(events[len(events) - days :])][problem.answer] += 1
        # Groups of some size only: in one of a single problem every guess is right.
        sized = [seen for seen in totals.values() if seen.total() >= 30]
        best = sum(max(seen.values()) for seen in sized) / sum(seen.total() for seen in sized)
        assert best < 0.2


def test_the_corpus_has_what_it_promises() -> None:
    texts = list(itertools.islice(documents(0), 2000))
    asides = sum("---" in text for text in texts) / len(texts)
    dials = sum("dial" in text for text in texts) / len(texts)
    stories = sum("On Sunday" in text for text in texts) / len(texts)
    assert 0.45 < asides < 0.65
    assert 0.2 < dials < 0.4
    assert 0.45 < stories < 0.65
