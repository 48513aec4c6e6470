"""What thoughts cost other requests in the batch, and those that join it."""

import random

from benchmarks.engine.load import Load, per_token, to_first
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import MS, Settings


def mixed_batch_cost(both: Pair, settings: Settings) -> Measured:
    """Requests without thoughts in a batch half of which thinks, against one where none does."""
    number, tokens = settings.mixed_batch, 3 * both.tokens
    measured = both.requests(number, 0, tokens)
    mixed = Load(measured, both.requests(number, settings.mixed_budget, tokens, 17))
    unmixed = Load(measured, both.requests(number, 0, 8 * tokens, 17))
    beside_thoughts, without = [], []
    for _ in both.repetitions("requests without thoughts in a mixed batch"):
        beside_thoughts.append(MS * per_token(both.ours.run(mixed)))
        without.append(MS * per_token(both.ours.run(unmixed)))
    return both.measured(
        "company",
        f"{number} at budget 0 beside {number} at budget {settings.mixed_budget}",
        ("mixed batch", "all at budget 0"),
        (beside_thoughts, without),
        1.1,
    )


def arrival_cost(both: Pair, settings: Settings) -> Measured:
    """The first token of a request that joins a batch which thinks, against one which does not."""
    draw = random.Random(0)
    gaps = tuple(draw.uniform(0, 0.02) for _ in range(settings.arrivals))
    newcomers = both.requests(settings.arrivals, 0, 1, 24)
    tokens = 8 * both.tokens
    number, budget = settings.arrival_batch, settings.mixed_budget
    thinking = Load(newcomers, both.requests(number, budget, tokens), gaps)
    decoding = Load(newcomers, both.requests(number, 0, 4 * tokens), gaps)
    to_thoughts, to_decoding = [], []
    for _ in both.repetitions("a new request's first token"):
        to_thoughts.append(MS * to_first(both.ours.run(thinking)))
        to_decoding.append(MS * to_first(both.ours.run(decoding)))
    return both.measured(
        "arrival",
        f"one more beside {number} at budget {budget}",
        ("beside thoughts", "beside budget 0"),
        (to_thoughts, to_decoding),
        1.3,
    )
