"""An evaluation from its settings to its results: items that are not known yet are asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from training.errors import UsageError
from training.evaluations.outcomes import chain_outcomes, item_outcomes
from training.evaluations.tasks.passages import Item, item_maker
from training.evaluations.record import Place, Record
from training.evaluations.backends.base import Route
from training.evaluations.tasks.definitions import ChainTask, Task

THINKER, BASE = "thinker", "base"


@dataclass(frozen=True)
class Asked:
    """Who is asked: a model by some route, with its tokenizer, at some budgets."""

    who: str
    route: Route
    tokenizer: PreTrainedTokenizerBase
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """How much is asked at a time and kept: `items_at_once`; tokens of a document; documents whose
    thoughts are kept for heat maps.
    """

    items_at_once: int
    document_tokens: int
    heat_maps: int


def evaluate(
    task_name: str,
    task: Task,
    rows: Sequence[Any],
    asked: Asked,
    sizes: Sizes,
    seed: int,
    record: Record,
) -> None:
    """Ask all rows of a task whose results are not in the record yet."""
    todo = [n for n in range(len(rows)) if Place(asked.who, task_name, n) not in record]
    title = task_name if asked.who == THINKER else f"{task_name} ({asked.who})"
    with tqdm(total=len(rows), initial=len(rows) - len(todo), desc=title, unit="item") as bar:
        for number, content in _results(task, rows, todo, asked, sizes, seed):
            record.add(Place(asked.who, task_name, number), content)
            bar.update()


def _results(
    task: Task, rows: Sequence[Any], todo: Sequence[int], asked: Asked, sizes: Sizes, seed: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    if isinstance(task, ChainTask):
        for n in todo:
            outcomes = chain_outcomes(
                task, rows[n], n, asked.route, asked.tokenizer, asked.budgets, seed
            )
            yield n, {"outcomes": dict(outcomes)}
        return
    make = item_maker(task, asked.tokenizer, sizes.document_tokens)
    shown = sizes.heat_maps if task.kind == "text" and asked.who == THINKER else 0
    # Those whose thoughts are kept by themselves: to keep all would take much memory.
    kept, others = [n for n in todo if n < shown], [n for n in todo if n >= shown]
    for numbers, with_thoughts in ((kept, True), (others, False)):
        for start in range(0, len(numbers), sizes.items_at_once):
            some = numbers[start : start + sizes.items_at_once]
            items = [make(rows[n]) for n in some]
            for n, content in zip(some, _scored(task, items, asked, with_thoughts), strict=True):
                yield n, content


def _scored(
    task: Task, items: Sequence[Item], asked: Asked, with_thoughts: bool
) -> Iterator[dict[str, Any]]:
    """What is written down of each item."""
    passages = [passage for item in items for passage in item.passages]
    if any(passage.num_scored < 1 for passage in passages):
        raise UsageError("a row has nothing to predict: an empty answer or document")
    scores = iter(asked.route.score(passages, with_thoughts=with_thoughts))
    for item in items:
        outcomes = item_outcomes(task.kind, item, [next(scores) for _ in item.passages])
        content: dict[str, Any] = {"outcomes": outcomes}
        if task.kind == "text":
            content |= {"bytes": item.num_bytes, "words": item.num_words}
        if with_thoughts:
            content |= _shown(item, outcomes, asked)
        yield content


def _shown(item: Item, outcomes: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """A document's tokens, and the longest thoughts about it, as texts; ids are of no use to a
    reader."""
    decode = asked.tokenizer.decode
    (passage,) = item.passages
    thoughts = [outcome.pop("thoughts", None) for outcome in outcomes.values()]
    longest = thoughts[-1] or [[] for _ in passage.ids[1:]]
    return {
        "tokens": [
            decode(passage.ids[:1], skip_special_tokens=True),
            *(decode([token]) for token in passage.ids[1:]),
        ],
        "thoughts": [decode(ids) for ids in longest],
    }
