"""Drafts of thought tokens: what they save, once there is something to draft from, and what they
cost, where there is nothing.

No text is measured twice: its thoughts would be drafted from its own, word for word.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from benchmarks.engine.engine_handle import EngineHandle
from benchmarks.engine.load import Load, Request, per_token
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import MS, Settings
from benchmarks.engine.measures.texts import Texts, always, groups, without_thoughts

# Of the time without drafts, where they do not pay.
_MOST = 1.03
# By batch: what time with drafts is to be of the time without.
_LIMITS = {1: 0.6, 4: 0.65, 16: 0.85}
_NAMES = ("with drafts", "without")
# How many requests: another text for each of them.
_Draw = Callable[[int], tuple[Request, ...]]


def speculative_gain(both: Pair, settings: Settings) -> Iterator[Measured]:
    """Given texts, thought about at every token, with drafts where these pay and without: right
    after the start, and by size of batch after others have been answered. Then texts that are
    thought about where it pays, with drafts.
    """
    texts = Texts.of(settings)

    def sampled(number: int) -> tuple[Request, ...]:
        return always(texts.documents(number))

    def greedy(number: int) -> tuple[Request, ...]:
        return tuple(replace(request, temperature=0.0) for request in sampled(number))

    case = f"budget {texts.budget}"
    yield _drafted(both, f"batch 1, {case}, right after the start", sampled, 1, 1, _MOST)
    for batch in settings.adaptive_batches:
        _warm_up(both, sampled, batch, settings.warm_up_tokens)
        number = max(settings.drafted_documents, 2 * batch)
        limit = _LIMITS.get(batch, _MOST)
        yield _drafted(both, f"batch {batch}, {case}", sampled, batch, number, limit)
        if batch == 1:
            yield _drafted(both, f"batch 1, {case}, greedy", greedy, 1, number, limit)
    number = settings.drafted_documents
    yield from _where_it_pays(both, texts.where, "documents", texts.documents, number, 1.4)
    yield from _where_it_pays(both, texts.where, "answers", texts.answers, settings.answers, 2.5)


def speculative_cost(both: Pair, settings: Settings) -> Iterator[Measured]:
    """A model whose drafts are never right, right after the start."""

    def draw(number: int) -> tuple[Request, ...]:
        return both.requests(number, settings.budget, both.tokens)

    for batch in settings.larger_drafted_batches:
        case = f"batch {batch}, budget {settings.budget}, right after the start"
        yield _drafted(both, case, draw, batch, batch, _MOST)


def _warm_up(both: Pair, draw: _Draw, batch: int, tokens: int) -> None:
    """Have both engines answer so many visible tokens in batches of this size."""
    both.progress(f"{both.name}: {tokens} tokens before drafts are measured, batch {batch}")
    while tokens > 0:
        load = Load(draw(batch))
        both.ours.run(load)
        both.stock.run(load)
        tokens -= sum(request.tokens for request in load.requests)


def _drafted(both: Pair, case: str, draw: _Draw, batch: int, number: int, limit: float) -> Measured:
    """Time per visible token with drafts, against that without, of the same texts."""
    drafted, plain = [], []
    for _ in both.repetitions(f"drafts of thought tokens, {case}"):
        requests = draw(number)
        drafted.append(_milliseconds(both.ours, requests, batch))
        plain.append(_milliseconds(both.stock, requests, batch))
    return both.measured("speculative", case, _NAMES, (drafted, plain), limit)


def _where_it_pays(
    both: Pair, where: str, what: str, draw: _Draw, number: int, limit: float
) -> Iterator[Measured]:
    """Thinking where it pays, with drafts: against as many tokens without thoughts, and against
    thinking at every token without drafts, the price before.
    """
    adaptive, without, before = [], [], []
    for _ in both.repetitions(f"{what}, thinking where it pays, with drafts"):
        requests = draw(number)
        adaptive.append(_milliseconds(both.ours, requests, 1))
        without.append(_milliseconds(both.ours, without_thoughts(requests), 1))
        before.append(_milliseconds(both.stock, always(requests), 1))
    case, name = f"{what}, batch 1, {where}", "where it pays, with drafts"
    yield both.measured("speculative", case, (name, "budget 0"), (adaptive, without), limit)
    names = (name, "everywhere, without")
    yield both.measured("speculative", case, names, (adaptive, before), 1.0)


def _milliseconds(engine: EngineHandle, requests: Sequence[Request], batch: int) -> float:
    """Per visible token, the mean of the batches."""
    return MS * fmean(per_token(engine.run(load)) for load in groups(requests, batch))
