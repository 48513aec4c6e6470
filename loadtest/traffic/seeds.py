"""Randomness that depends on the seed and on a purpose, never on who draws or in which order."""

import random


def rng_for(seed: int, *purpose: str | int) -> random.Random:
    """A generator of its own for each purpose, the same in every process and Python version."""
    # Text is hashed with SHA-512 by `random`, so that neighbouring purposes have nothing in common.
    return random.Random("/".join(map(str, (seed, *purpose))))
