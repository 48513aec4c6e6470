"""Throughput of scoring: all positions of a text at once, beside one position after another."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from training.trainer.build import local_folder
from training.demo.corpus.documents import documents
from training.evaluations.evaluated_model import load_for_evaluation
from training.evaluations.tasks.passages import Passage
from training.evaluations.backends.base import Route
from training.evaluations.backends.http import served_by
from training.evaluations.backends.local import ThinkerRoute
from training.thoughts.decode import Thoughts
from training.demo.report import table

Score = Callable[[Route, list[int]], None]
HEAD = (
    *("thought budget", "parallel, tokens/s", "sequential, tokens/s"),
    *("parallel, s", "sequential, s", "times as fast"),
)


def at_once(route: Route, ids: list[int]) -> None:
    """Score every token of a text but its first."""
    route.score([Passage(ids, 1)])


def one_by_one(route: Route, ids: list[int]) -> None:
    """The same, a position at a time."""
    for end in range(2, len(ids) + 1):
        route.score([Passage(ids[:end], end - 1)])


WAYS: tuple[Score, Score] = (at_once, one_by_one)


def scoring_speed(options: argparse.Namespace) -> str:
    """A Markdown table, a row per budget. The budgets take turns, and every measurement has a text
    of its own, which no cache has seen.
    """
    tokenizer = load_tokenizer(local_folder(options.model))
    texts = _texts(tokenizer, options.tokens + 1)
    budgets = sorted({0, *options.budgets})
    with _routes(options, tokenizer, budgets) as routes:
        rounds = [
            [[_timed(way, route, next(texts)) for way in WAYS] for route in routes]
            for _ in range(options.rounds)
        ]
    rows = []
    for number, budget in enumerate(budgets):
        fast, slow = (median(times[number][way] for times in rounds) for way in range(len(WAYS)))
        speeds = (f"{options.tokens / seconds:.0f}" for seconds in (fast, slow))
        rows.append([str(budget), *speeds, f"{fast:.2f}", f"{slow:.2f}", f"{slow / fast:.1f}"])
    return table(HEAD, rows)


@contextmanager
def _routes(
    options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase, budgets: list[int]
) -> Iterator[list[Route]]:
    """One for each budget."""
    each = [Thoughts((budget,)) for budget in budgets]
    with ExitStack() as stack:
        if options.url is not None:
            name = options.served_model
            yield [stack.enter_context(served_by(options.url, one, name)) for one in each]
            return
        thinker, _ = load_for_evaluation(
            local_folder(options.model), options.thought_embeddings, options.device, options.dtype
        )
        yield [ThinkerRoute(thinker, tokenizer, one) for one in each]


def _texts(tokenizer: PreTrainedTokenizerBase, tokens: int) -> Iterator[list[int]]:
    """Texts of so many tokens, all different, of the demonstration's corpus."""
    stream = documents(seed=7)
    while True:
        ids: list[int] = []
        while len(ids) < tokens:
            ids += tokenizer.encode(" ".join(itertools.islice(stream, 8)), verbose=False)
        yield ids[:tokens]


def _timed(score: Score, route: Route, ids: list[int]) -> float:
    start = time.perf_counter()
    score(route, ids)
    return time.perf_counter() - start
