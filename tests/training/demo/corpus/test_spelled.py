"""Spelled problems: right, and one token a day for tokenizers that keep number words whole."""

import itertools
import random
import re

from training.demo.corpus.problems import Problem, draw_problem, held_out_problems, is_held_out
from training.demo.corpus.spelled import NUMBERS, draw_change, draw_days, make_spelled

MORE = {"finds", "buys", "picks", "gets"}
LESS = {"eats", "sells", "loses", "drops"}


def some_problems(number: int = 500) -> list[Problem]:
    rng = random.Random(7)
    return [make_spelled(rng) for _ in range(number)]


def solve(prompt: str) -> list[str]:
    """The totals after each day in words, computed from the text alone."""
    first, *days, asked = prompt.split(". ")
    owner, total = first.split()[0], NUMBERS.index(first.split()[2])
    assert asked == f"On Friday {owner} has"
    totals = []
    for day, told in zip(("Monday", "Tuesday", "Wednesday", "Thursday"), days, strict=True):
        found = re.fullmatch(rf"On {day} s?he (\w+) (\w+)", told)
        assert found
        verb, amount = found.groups()
        if verb in MORE | LESS:
            total += NUMBERS.index(amount) * (1 if verb in MORE else -1)
        else:
            assert told.endswith(" keeps all")
        totals.append(NUMBERS[total])
    return totals


def test_answers_and_working_are_right() -> None:
    for problem in some_problems():
        totals = solve(problem.prompt)
        assert [piece.strip() for piece in problem.working] == totals
        assert problem.answer == f" {totals[-1]}"
        assert problem.working[problem.done - 1] == problem.answer
        # One is singular, at the end as at the beginning.
        for number, thing in (
            (problem.prompt.split()[2], problem.prompt.split()[3]),
            (problem.answer.strip(), problem.ending.strip()),
        ):
            assert (number == "one") == (not thing.rstrip(".").endswith("s"))


def test_a_working_is_a_number_word_a_day() -> None:
    for problem in some_problems():
        assert len(problem.working) == 4
        assert 1 <= problem.steps == problem.done <= 4
        assert {piece.strip() for piece in problem.working} <= {*NUMBERS[1:]}
        assert all(re.fullmatch(r" [a-z]+", piece) for piece in problem.working)


def test_totals_stay_in_the_range_and_every_change_changes_something() -> None:
    rng = random.Random(3)
    for total in range(1, 13):
        for _ in range(50):
            event = draw_change(total, rng)
            assert event.total in range(1, 13)
            assert 1 <= abs(event.total - total) <= 3
            assert int(event.effect) == event.total - total
    days = draw_days(5, 2, rng)
    assert [event.words for event in days[2:]] == ["keeps all"] * 2
    assert {event.total for event in days[1:]} == {days[1].total}


def test_training_never_sees_a_held_out_problem() -> None:
    rng = random.Random(0)
    trained_on = {draw_problem(make_spelled, rng, held_out=False).key for _ in range(3000)}
    held_out = list(itertools.islice(held_out_problems(make_spelled, seed=1), 400))
    keys = {problem.key for problem in held_out}
    assert len(keys) == 400
    assert not keys & trained_on
    assert all(is_held_out(problem) and problem.steps >= 2 for problem in held_out)


def test_the_total_at_the_beginning_is_rarely_the_answer() -> None:
    """Who answers without working, with the number that was said first, is rarely right."""
    problems = [problem for problem in some_problems() if problem.steps >= 2]
    lucky = sum(problem.prompt.split()[2] == problem.answer.strip() for problem in problems)
    assert lucky / len(problems) < 0.25
