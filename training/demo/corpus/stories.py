"""The story family: word problems about one week, from Monday to Saturday.

    Ann has 3 apples. On Monday she finds 4. On Tuesday she eats 3. On Wednesday she doubles them.
    On Thursday she keeps all. On Friday she keeps all. On Saturday she keeps all.
    On Sunday Ann has 8 apples.

Each day is a sentence of six tokens and the working names the day before its total (` Monday 7
Tuesday 5 ...`): a small model finds the sentence by the day's name instead of by counting. Totals
are `TOTALS`, one token each. So that guesses are rarely right, an event that would leave the range
is drawn again instead of cut to fit; gains and losses are equally likely, so that the totals stay
spread over the whole range; and doubling, tripling and halving mean that adding up all the numbers
at once does not give the answer.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.demo.corpus.people import PEOPLE
from training.demo.corpus.problems import Problem

TOTALS = range(1, 31)
LARGEST_CHANGE = 9
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_STEPS = range(1, len(DAYS) + 1)
_STEP_WEIGHTS = [1 if steps <= 2 else 2 for steps in _STEPS]
GAINS = ("finds", "buys", "picks", "gets")
LOSSES = ("eats", "sells", "loses", "drops")
THINGS = (
    ("apple", "apples"),
    ("pear", "pears"),
    ("plum", "plums"),
    ("fig", "figs"),
    ("egg", "eggs"),
    ("nut", "nuts"),
    ("cookie", "cookies"),
    ("melon", "melons"),
)


@dataclass(frozen=True)
class Event:
    """What happens on one day: its words, what it does (for the key) and the total after it."""

    words: str
    effect: str
    total: int


def keep(total: int) -> Event:
    """A day on which nothing changes."""
    return Event("keeps all", "=", total)


def gain(total: int, rng: random.Random) -> Event:
    """Some more."""
    change = rng.randint(1, LARGEST_CHANGE)
    return Event(f"{rng.choice(GAINS)} {change}", f"+{change}", total + change)


def loss(total: int, rng: random.Random) -> Event:
    """Some less."""
    change = rng.randint(1, LARGEST_CHANGE)
    return Event(f"{rng.choice(LOSSES)} {change}", f"-{change}", total - change)


def double(total: int, rng: random.Random) -> Event:
    """Twice as many."""
    return Event("doubles them", "*2", total * 2)


def triple(total: int, rng: random.Random) -> Event:
    """Three times as many."""
    return Event("triples them", "*3", total * 3)


def halve(total: int, rng: random.Random) -> Event | None:
    """Half of them gone; nobody halves an odd number."""
    return None if total % 2 else Event(f"{rng.choice(LOSSES)} half", "/2", total // 2)


Happening = Callable[[int, random.Random], Event | None]
HAPPENINGS: Mapping[Happening, int] = {gain: 6, loss: 6, double: 3, triple: 2, halve: 3}
"""What can happen to a total, with weights for drawing."""


def draw_event(total: int, rng: random.Random, totals: range = TOTALS) -> Event:
    """Draw until an event leaves a total in the range."""
    while True:
        (happening,) = rng.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
        event = happening(total, rng)
        if event is not None and event.total in totals:
            return event


def draw_week(start: int, steps: int, rng: random.Random) -> list[Event]:
    """Draw six days: `steps` events, then days that change nothing."""
    week: list[Event] = []
    total = start
    for day in range(len(DAYS)):
        event = draw_event(total, rng) if day < steps else keep(total)
        week.append(event)
        total = event.total
    return week


def amount(total: int, thing: tuple[str, str]) -> str:
    """The total with its noun: `1 apple`, `5 apples`."""
    return f"{total} {thing[0] if total == 1 else thing[1]}"


def make_story(rng: random.Random) -> Problem:
    """Draw one word problem."""
    person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    start, (steps,) = rng.choice(TOTALS), rng.choices(_STEPS, _STEP_WEIGHTS)
    week = draw_week(start, steps, rng)
    days = " ".join(
        f"On {day} {person.pronoun} {event.words}." for day, event in zip(DAYS, week, strict=True)
    )
    last = week[-1].total
    return Problem(
        family="story",
        key=" ".join([str(start), *(event.effect for event in week)]),
        prompt=f"{person.name} has {amount(start, thing)}. {days} On Sunday {person.name} has",
        working=tuple(
            piece
            for day, event in zip(DAYS, week, strict=True)
            for piece in (f" {day}", f" {event.total}")
        ),
        answer=f" {last}",
        ending=amount(last, thing).removeprefix(str(last)) + ".",
        steps=steps,
        done=2 * steps,
    )
