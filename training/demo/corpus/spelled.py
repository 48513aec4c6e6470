"""The spelled family: word problems for pretrained models, which know numbers as words.

    Ann has seven apples. On Monday she finds two. On Tuesday she eats three. On Wednesday she
    finds one. On Thursday she keeps all. On Friday Ann has seven apples.

Tokenizers of pretrained models cut `12` into digits, with the space before it a token of its own,
but keep ` twelve` whole: a working of four totals is a thought of four tokens. Single steps are
small, so that a model of a hundred million weights learns them in some hundred documents; what is
hard is to take four of them at once.
"""

import random

from training.demo.corpus.people import PEOPLE
from training.demo.corpus.problems import Problem
from training.demo.corpus.stories import GAINS, LOSSES, THINGS, Event, keep

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
"""The words, each at the index of what it says."""
SPELLED_TOTALS = range(1, len(NUMBERS))
CHANGES = (-3, -2, -1, 1, 2, 3)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday")
_STEP_COUNTS = range(1, len(_DAYS) + 1)
_COUNT_WEIGHTS = (1, 1, 2, 4)


def draw_change(total: int, rng: random.Random) -> Event:
    """Some more or some less, such that the total stays in the range."""
    change = rng.choice([change for change in CHANGES if total + change in SPELLED_TOTALS])
    verb = rng.choice(GAINS if change > 0 else LOSSES)
    return Event(f"{verb} {NUMBERS[abs(change)]}", f"{change:+d}", total + change)


def draw_days(start: int, steps: int, rng: random.Random) -> list[Event]:
    """Draw four days: `steps` events, then days that change nothing."""
    days: list[Event] = []
    total = start
    for day in range(len(_DAYS)):
        days.append(draw_change(total, rng) if day < steps else keep(total))
        total = days[-1].total
    return days


def make_spelled(rng: random.Random) -> Problem:
    """Draw one problem."""
    person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    start, (steps,) = rng.choice(SPELLED_TOTALS), rng.choices(_STEP_COUNTS, _COUNT_WEIGHTS)
    days = draw_days(start, steps, rng)
    told = " ".join(
        f"On {day} {person.pronoun} {event.words}." for day, event in zip(_DAYS, days, strict=True)
    )
    last = days[-1].total
    return Problem(
        family="spelled",
        key=" ".join([str(start), *(event.effect for event in days)]),
        prompt=f"{person.name} has {NUMBERS[start]} {thing[start != 1]}. {told} "
        f"On Friday {person.name} has",
        working=tuple(f" {NUMBERS[event.total]}" for event in days),
        answer=f" {NUMBERS[last]}",
        ending=f" {thing[last != 1]}.",
        steps=steps,
        done=steps,
    )
