"""Random generators that depend on the seed and a purpose, not on process or order of calls."""

import random


def rng_for(seed: int, *purpose: str | int) -> random.Random:
    """A generator for each purpose, the same in every process and Python version."""
    # `random` hashes text with SHA-512, so that similar purposes give unrelated generators.
    return random.Random("/".join(map(str, (seed, *purpose))))
