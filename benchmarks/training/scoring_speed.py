"""Throughput of scoring: all positions of a text at once, beside one position after another."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from training.demo.corpus.documents import documents
from training.evaluations.backends.base import Backend
from training.evaluations.backends.http import served_by
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_for_evaluation
from training.evaluations.tasks.passages import Passage
from training.markdown import markdown_table
from training.thoughts.decode import ThoughtSettings
from training.thoughts.loading import local_folder

_Score = Callable[[Backend, list[int]], None]
_HEAD = (
    *("thought budget", "parallel, tokens/s", "sequential, tokens/s"),
    *("parallel, s", "sequential, s", "times as fast"),
)


def score_at_once(backend: Backend, ids: list[int]) -> None:
    """Score every token of a text but its first."""
    backend.score([Passage(ids, 1)])


def score_one_by_one(backend: Backend, ids: list[int]) -> None:
    """The same, a position at a time."""
    for end in range(2, len(ids) + 1):
        backend.score([Passage(ids[:end], end - 1)])


_WAYS: tuple[_Score, _Score] = (score_at_once, score_one_by_one)


def scoring_speed(options: argparse.Namespace) -> str:
    """A Markdown table, a row per budget. The budgets take turns, and every measurement has a text
    of its own, which no cache has seen.
    """
    tokenizer = load_tokenizer(local_folder(options.model))
    texts = _texts(tokenizer, options.tokens + 1)
    budgets = sorted({0, *options.budgets})
    with _backends(options, tokenizer, budgets) as backends:
        rounds = [
            [[_timed(way, backend, next(texts)) for way in _WAYS] for backend in backends]
            for _ in range(options.rounds)
        ]
    rows = []
    for number, budget in enumerate(budgets):
        fast, slow = (median(times[number][way] for times in rounds) for way in range(len(_WAYS)))
        speeds = (f"{options.tokens / seconds:.0f}" for seconds in (fast, slow))
        rows.append([str(budget), *speeds, f"{fast:.2f}", f"{slow:.2f}", f"{slow / fast:.1f}"])
    return markdown_table(_HEAD, rows)


@contextmanager
def _backends(
    options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase, budgets: list[int]
) -> Iterator[list[Backend]]:
    """One for each budget."""
    each = [ThoughtSettings((budget,)) for budget in budgets]
    with ExitStack() as stack:
        if options.url is not None:
            name = options.served_model
            yield [stack.enter_context(served_by(options.url, one, name)) for one in each]
            return
        thinker, _ = load_for_evaluation(
            local_folder(options.model), options.thought_embeddings, options.device, options.dtype
        )
        yield [LocalBackend(thinker, tokenizer, one) for one in each]


def _texts(tokenizer: PreTrainedTokenizerBase, tokens: int) -> Iterator[list[int]]:
    """Texts of so many tokens, all different, of the demonstration's corpus."""
    stream = documents(seed=7)
    while True:
        ids: list[int] = []
        while len(ids) < tokens:
            ids += tokenizer.encode(" ".join(itertools.islice(stream, 8)), verbose=False)
        yield ids[:tokens]


def _timed(score: _Score, backend: Backend, ids: list[int]) -> float:
    start = time.perf_counter()
    score(backend, ids)
    return time.perf_counter() - start
