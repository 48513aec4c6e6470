"""Evaluates the rows of a task that the record has no result for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from training.errors import UsageError
from training.evaluations.backends.base import Backend
from training.evaluations.outcomes import chain_outcomes, item_outcomes
from training.evaluations.record import Place, Record
from training.evaluations.sweep import Cell, drawn_cell
from training.evaluations.tasks.definitions import ChainTask, Task
from training.evaluations.tasks.passages import PLAIN, Item, MakeItem, item_maker
from training.evaluations.tasks.prompts import PromptFormat

THINKER, BASE, CONTROL_ROLE = "thinker", "base", "control"


@dataclass(frozen=True)
class EvaluatedBackend:
    """A model behind a backend, its role (`thinker`, `base` or `control`), its tokenizer, and how
    it thinks: the cells of the sweep.
    """

    role: str
    backend: Backend
    tokenizer: PreTrainedTokenizerBase
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Limits:
    """`batch_size`: items per call; most tokens of a document; documents whose thoughts are kept
    for heat maps.
    """

    batch_size: int
    document_tokens: int
    heat_maps: int


@dataclass(frozen=True)
class AskedTask:
    """A task, its rows, and how they are put."""

    name: str
    task: Task
    rows: Sequence[Any]
    form: PromptFormat = PLAIN


def evaluate(
    asked: AskedTask, model: EvaluatedBackend, limits: Limits, seed: int, record: Record
) -> None:
    """Evaluate all rows of a task whose results are not in the record yet."""
    name, number_of_rows = asked.name, len(asked.rows)
    todo = [n for n in range(number_of_rows) if Place(model.role, name, n) not in record]
    title = name if model.role == THINKER else f"{name} ({model.role})"
    done = number_of_rows - len(todo)
    with tqdm(total=number_of_rows, initial=done, desc=title, unit="item") as bar:
        for number, content in _results(asked, todo, model, limits, seed):
            record.add(Place(model.role, name, number), content)
            bar.update()


def check_rows(asked: AskedTask, model: EvaluatedBackend, limits: Limits) -> None:
    """Raise `UsageError` for the first row of a task that cannot be scored."""
    if isinstance(asked.task, ChainTask):
        for row in asked.rows[:1]:
            asked.form.prompt(asked.task.ask(row), model.tokenizer)
        return
    make = item_maker(asked.task, model.tokenizer, limits.document_tokens, asked.form)
    for number, row in enumerate(asked.rows):
        _made(make, row, f"{asked.name}, row {number}")


def _results(
    asked: AskedTask,
    todo: Sequence[int],
    model: EvaluatedBackend,
    limits: Limits,
    seed: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    task, rows = asked.task, asked.rows
    if isinstance(task, ChainTask):
        for n in todo:
            outcomes = chain_outcomes(
                task,
                rows[n],
                n,
                model.backend,
                model.tokenizer,
                model.cells,
                seed,
                asked.form,
            )
            yield n, {"outcomes": dict(outcomes)}
        return
    make = item_maker(task, model.tokenizer, limits.document_tokens, asked.form)
    shown = limits.heat_maps if task.kind == "text" and model.role == THINKER else 0
    # Items whose thoughts are kept are scored apart: keeping all thoughts would take much memory.
    kept, others = [n for n in todo if n < shown], [n for n in todo if n >= shown]
    for numbers, with_thoughts in ((kept, True), (others, False)):
        for start in range(0, len(numbers), limits.batch_size):
            some = numbers[start : start + limits.batch_size]
            items = [_made(make, rows[n], f"{asked.name}, row {n}") for n in some]
            for n, content in zip(some, _scored(task, items, model, with_thoughts), strict=True):
                yield n, content


def _made(make: MakeItem, row: Any, name: str) -> Item:
    """A row as an item; raises `UsageError`, which names it, where it cannot be scored."""
    try:
        item = make(row)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    if any(passage.num_scored < 1 for passage in item.passages):
        raise UsageError(
            f"{name} has nothing to predict: an empty answer, or a document without a second token "
            "(--beginning bos puts one before the first)"
        )
    return item


def _scored(
    task: Task, items: Sequence[Item], model: EvaluatedBackend, with_thoughts: bool
) -> Iterator[dict[str, Any]]:
    """The recorded content of each item."""
    passages = [passage for item in items for passage in item.passages]
    scores = iter(model.backend.score(passages, with_thoughts=with_thoughts))
    for item in items:
        outcomes = item_outcomes(task.kind, item, [next(scores) for _ in item.passages])
        content: dict[str, Any] = {"outcomes": outcomes}
        if task.kind == "text":
            content |= {"bytes": item.num_bytes, "words": item.num_words}
        if with_thoughts:
            content |= _shown(item, outcomes, model.cells, model.tokenizer)
        yield content


def _shown(
    item: Item,
    outcomes: dict[str, Any],
    cells: Sequence[Cell],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """A document's tokens and the thoughts about it in the cell that is drawn, as texts instead of
    ids; None where there was none.
    """
    decode = tokenizer.decode
    (passage,) = item.passages
    by_cell = {key: outcome.pop("thoughts", None) for key, outcome in outcomes.items()}
    thoughts = by_cell[drawn_cell(cells).key] or [[] for _ in passage.ids[1:]]
    return {
        "tokens": [
            decode(passage.ids[:1], skip_special_tokens=True),
            *(decode([token]) for token in passage.ids[1:]),
        ],
        "thoughts": [decode(ids) if ids else None for ids in thoughts],
    }
