"""The dial family: twelve operations on a dial with the digits 0 to 9.

    Ann has the dial at 2: triple swap up up flip rest rest rest rest rest rest rest.
    Now it shows 0.

Every operation is a bijection modulo ten and the order matters, so there is no shortcut past the
running value. `rest` does nothing and fills the list up to twelve: operation i always stands the
same distance before running value i, and a small model needs only that one distance.
"""

import random
from collections.abc import Callable, Mapping

from training.demo.corpus.people import PEOPLE
from training.demo.corpus.problems import LONGEST_WORKING, Problem

REST = "rest"
OPERATIONS: Mapping[str, Callable[[int], int]] = {
    "up": lambda digit: (digit + 1) % 10,
    "down": lambda digit: (digit - 1) % 10,
    "hop": lambda digit: (digit + 3) % 10,
    "triple": lambda digit: (digit * 3) % 10,
    "flip": lambda digit: 9 - digit,
    "swap": lambda digit: digit ^ 1,  # 0 with 1, 2 with 3, ...
    REST: lambda digit: digit,
}
WORKING_OPERATIONS = tuple(name for name in OPERATIONS if name != REST)
_STEPS = range(1, LONGEST_WORKING + 1)
_STEP_WEIGHTS = [2 if steps <= 4 else 1 for steps in _STEPS]


def running_values(start: int, operations: list[str]) -> list[int]:
    """The digit on the dial after each operation."""
    values = []
    digit = start
    for operation in operations:
        digit = OPERATIONS[operation](digit)
        values.append(digit)
    return values


def make_dial(rng: random.Random) -> Problem:
    """Draw one dial problem."""
    steps = rng.choices(_STEPS, _STEP_WEIGHTS)[0]
    operations = rng.choices(WORKING_OPERATIONS, k=steps) + [REST] * (LONGEST_WORKING - steps)
    start = rng.randrange(10)
    values = running_values(start, operations)
    listed = " ".join(operations)
    return Problem(
        family="dial",
        key=f"{start} {listed}",
        prompt=f"{rng.choice(PEOPLE).name} has the dial at {start}: {listed}. Now it shows",
        working=tuple(f" {value}" for value in values),
        answer=f" {values[-1]}",
        ending=".",
        steps=steps,
        done=steps,
    )
