"""Problems of the story family."""

import random
import re
from collections import Counter, defaultdict

from training.demo.corpus.stories import make_story


def test_one_thing_is_singular() -> None:
    rng = random.Random(7)
    for problem in (make_story(rng) for _ in range(500)):
        assert re.fullmatch(r" [a-z]+\.", problem.ending)
        assert problem.ending.endswith("s.") == (problem.answer != " 1")


def test_totals_are_hard_to_guess() -> None:
    """Neither the likeliest total nor the likeliest after the same last days is often right."""
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
