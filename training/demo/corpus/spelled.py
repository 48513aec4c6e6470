"""The spelled family: word problems for pretrained models, which know numbers as words.

    Ann has seven apples. On Monday she finds four. On Tuesday she eats three. On Wednesday she
    doubles them. On Thursday she keeps all. On Friday Ann has sixteen apples.

Tokenizers of pretrained models cut `16` into digits, with the space before it a token of its own,
but keep ` sixteen` whole: a working of four totals is a thought of four tokens. Otherwise the
problems are those of the story family, with four days instead of six.
"""

import random
from dataclasses import replace

from training.demo.corpus.people import PEOPLE
from training.demo.corpus.problems import Problem
from training.demo.corpus.stories import THINGS, Event, draw_event, keep

NUMBERS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty".split()
)
"""The words, each at the index of what it says."""
SPELLED_TOTALS = range(1, len(NUMBERS))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday")
_STEP_COUNTS = range(1, len(_DAYS) + 1)
_COUNT_WEIGHTS = (1, 1, 2, 2)


def in_words(text: str) -> str:
    """The text with its numbers in words."""
    return " ".join(NUMBERS[int(word)] if word.isdigit() else word for word in text.split(" "))


def draw_days(start: int, steps: int, rng: random.Random) -> list[Event]:
    """Draw four days: `steps` events, then days that change nothing."""
    days: list[Event] = []
    total = start
    for day in range(len(_DAYS)):
        event = draw_event(total, rng, SPELLED_TOTALS) if day < steps else keep(total)
        days.append(replace(event, words=in_words(event.words)))
        total = event.total
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
