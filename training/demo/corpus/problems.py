"""What a problem is, whatever its family, and which problems training never sees.

A problem is laid out so that its working can be written token by token: `working` is a tuple of
pieces that the tokenizer keeps whole (a word or a digit *with* its leading space), one per thought
token. After the first `done` pieces the answer is known.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT_SHARE = 16
"""One problem in this many is held out."""

LONGEST_WORKING = 12
"""Pieces of a complete working, the same in every family: a thought of 12 tokens is enough."""


@dataclass(frozen=True)
class Problem:
    """One problem of one family.

    `key` says what is asked, free of names and wording: two problems with equal keys are the same
    problem. `prompt` ends just before the answer, without a trailing space; `answer` and every
    piece of `working` begin with one. `ending` closes the sentence after the answer. `steps` counts
    the operations that do something, `done` the pieces of working after which the answer is known.
    """

    family: str
    key: str
    prompt: str
    working: tuple[str, ...]
    answer: str
    ending: str
    steps: int
    done: int


Maker = Callable[[random.Random], Problem]


def is_held_out(problem: Problem) -> bool:
    """Whether the problem belongs to the evaluation, decided by a hash of what it asks."""
    digest = hashlib.sha256(f"{problem.family} {problem.key}".encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def draw_problem(make: Maker, rng: random.Random, *, held_out: bool) -> Problem:
    """Draw problems until one falls on the wanted side of the split."""
    while True:
        problem = make(rng)
        if is_held_out(problem) == held_out:
            return problem


def held_out_problems(make: Maker, seed: int, *, fewest_steps: int = 2) -> Iterator[Problem]:
    """Yield held-out problems, all different, without end.

    Problems of one step are left out: there are too few of them to measure accuracy.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        problem = draw_problem(make, rng, held_out=True)
        if problem.steps >= fewest_steps and problem.key not in seen:
            seen.add(problem.key)
            yield problem
