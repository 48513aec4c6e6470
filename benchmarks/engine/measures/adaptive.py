"""Thinking where it pays, by the checkpoint's own threshold."""

from collections.abc import Iterator
from statistics import fmean

from benchmarks.engine.load import Load, per_token
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import MS, Settings
from benchmarks.engine.measures.texts import Texts, groups, without_thoughts


def adaptive_cost(both: Pair, settings: Settings) -> Iterator[Measured]:
    """Given texts, thought about where it pays by the checkpoint's own default threshold, against
    as many tokens without thoughts; and what such requests cost their neighbours.

    Random tokens would not do: how often it pays to think depends on the text.
    """
    texts = Texts.of(settings)
    documents = texts.documents(settings.adaptive_groups * max(settings.adaptive_batches))
    for batch in settings.adaptive_batches:
        thinking = groups(documents[: batch * settings.adaptive_groups], batch)
        plain = [Load(without_thoughts(load.requests)) for load in thinking]
        with_thoughts, without = [], []
        for _ in both.repetitions(f"thinking where it pays, batch {batch}"):
            with_thoughts.append(MS * fmean(per_token(both.ours.run(load)) for load in thinking))
            without.append(MS * fmean(per_token(both.ours.run(load)) for load in plain))
        case = f"batch {batch}, {texts.where}"
        names = ("thinking where it pays", "budget 0")
        yield both.measured("adaptive", case, names, (with_thoughts, without), 1.6)
    neighbours = documents[: settings.mixed_batch]
    measured = both.requests(settings.mixed_batch, 0, 8 * both.tokens)
    mixed, unmixed = (
        Load(measured, background) for background in (neighbours, without_thoughts(neighbours))
    )
    beside_thoughts, beside_none = [], []
    for _ in both.repetitions("requests without thoughts beside such"):
        beside_thoughts.append(MS * per_token(both.ours.run(mixed)))
        beside_none.append(MS * per_token(both.ours.run(unmixed)))
    number = settings.mixed_batch
    case = f"{number} at budget 0 beside {number} that think where it pays"
    names = ("mixed batch", "all at budget 0")
    yield both.measured("adaptive", case, names, (beside_thoughts, beside_none), 1.1)
