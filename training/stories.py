"""The story family: word problems about one week, from Monday to Saturday.

    Ann has 3 apples. On Monday she finds 4. On Tuesday she eats 3. On Wednesday she doubles them.
    On Thursday she keeps all. On Friday she keeps all. On Saturday she keeps all.
    On Sunday Ann has 8 apples.

Each day is a sentence of six tokens and the working names the day before its total (` Monday 7
Tuesday 5 ...`): a small model finds the sentence by the day's name instead of by counting. Totals
stay between 0 and `MOST`, and each is one token. Doubling, tripling and halving keep the answer
out of reach of a model that only adds up all the numbers at once.
"""

import random
from dataclasses import dataclass

from training.people import PEOPLE
from training.problems import Problem

MOST = 30
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
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
LARGEST_CHANGE = 9


@dataclass(frozen=True)
class Event:
    """What happens on one day: its words, what it does (for the key) and the total after it."""

    words: str
    effect: str
    total: int


def keep(total: int) -> Event:
    """A day on which nothing changes."""
    return Event("keeps all", "=", total)


def possible_events(total: int, rng: random.Random) -> list[Event]:
    """Events of each kind that leave the total between 0 and MOST, each as likely."""
    events = []
    if total < MOST:
        gain = rng.randint(1, min(LARGEST_CHANGE, MOST - total))
        events.append(Event(f"{rng.choice(GAINS)} {gain}", f"+{gain}", total + gain))
    if total > 0:
        loss = rng.randint(1, min(LARGEST_CHANGE, total))
        events.append(Event(f"{rng.choice(LOSSES)} {loss}", f"-{loss}", total - loss))
    if 0 < total <= MOST // 2:
        events.append(Event("doubles them", "*2", total * 2))
    if 0 < total <= MOST // 3:
        events.append(Event("triples them", "*3", total * 3))
    if total > 0 and total % 2 == 0:
        half = Event(f"{rng.choice(LOSSES)} half", "/2", total // 2)
        events += [half, half]  # as likely as doubling and tripling together
    return events


def draw_week(start: int, steps: int, rng: random.Random) -> list[Event]:
    """Draw six days: `steps` events, then days that change nothing."""
    week: list[Event] = []
    total = start
    for day in range(len(DAYS)):
        event = rng.choice(possible_events(total, rng)) if day < steps else keep(total)
        week.append(event)
        total = event.total
    return week


def count(total: int, thing: tuple[str, str]) -> str:
    """The total with its noun: `1 apple`, `5 apples`."""
    return f"{total} {thing[0] if total == 1 else thing[1]}"


def make_story(rng: random.Random) -> Problem:
    """Draw one word problem."""
    person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    start, steps = rng.randint(1, MOST), rng.randint(1, len(DAYS))
    week = draw_week(start, steps, rng)
    days = " ".join(
        f"On {day} {person.pronoun} {event.words}." for day, event in zip(DAYS, week, strict=True)
    )
    last = week[-1].total
    return Problem(
        family="story",
        key=" ".join([str(start), *(event.effect for event in week)]),
        prompt=f"{person.name} has {count(start, thing)}. {days} On Sunday {person.name} has",
        working=tuple(
            piece
            for day, event in zip(DAYS, week, strict=True)
            for piece in (f" {day}", f" {event.total}")
        ),
        answer=f" {last}",
        ending=count(last, thing).removeprefix(str(last)) + ".",
        steps=steps,
        done=2 * steps,
    )
