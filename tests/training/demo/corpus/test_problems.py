"""Problems of both families: right, and split without overlap."""

import itertools
import random
import re
from collections.abc import Callable

import pytest

from training.demo.corpus.documents import (
    FAMILIES,
)
from training.demo.corpus.problems import (
    LONGEST_WORKING,
    Problem,
    draw_problem,
    held_out_problems,
    is_held_out,
)

DIGITS_AFTER = {
    "up": "1234567890",
    "down": "9012345678",
    "hop": "3456789012",
    "triple": "0369258147",
    "flip": "9876543210",
    "swap": "1032547698",
    "rest": "0123456789",
}
"""The result of each dial operation for 0 to 9, written out by hand."""


def solve_dial(prompt: str) -> list[int]:
    """Running values, computed from the text alone."""
    found = re.fullmatch(r"\w+ has the dial at (\d): ((?:\w+ ?)+)\. Now it shows", prompt)
    assert found
    digit, values = found[1], []
    for operation in found[2].split():
        digit = DIGITS_AFTER[operation][int(digit)]
        values.append(int(digit))
    return values


def solve_story(prompt: str) -> list[int]:
    """Totals after each day, computed from the text alone."""
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


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_working_are_right(family: str) -> None:
    for problem in some_problems(family):
        values = SOLVERS[family](problem.prompt)
        worked = [int(piece) for piece in problem.working if piece.strip().isdigit()]
        assert worked == values
        assert problem.answer == f" {values[-1]}"
        # After `done` pieces the answer is known.
        assert problem.working[problem.done - 1] == problem.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_working_fills_the_same_number_of_pieces(family: str) -> None:
    for problem in some_problems(family):
        assert len(problem.working) == LONGEST_WORKING
        assert 1 <= problem.steps <= problem.done <= LONGEST_WORKING
        assert all(piece.startswith(" ") for piece in problem.working)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_never_sees_a_held_out_problem(family: str) -> None:
    rng = random.Random(0)
    trained_on = {draw_problem(FAMILIES[family], rng, held_out=False).key for _ in range(5000)}
    held_out = list(itertools.islice(held_out_problems(FAMILIES[family], seed=0), 500))
    keys = {problem.key for problem in held_out}
    assert len(keys) == 500
    assert not keys & trained_on
    assert all(is_held_out(problem) and problem.steps >= 2 for problem in held_out)


def test_the_split_does_not_depend_on_names() -> None:
    by_key: dict[str, set[bool]] = {}
    for problem in some_problems("dial", 3000):
        if problem.steps == 1:
            by_key.setdefault(problem.key, set()).add(is_held_out(problem))
    assert all(len(sides) == 1 for sides in by_key.values())
