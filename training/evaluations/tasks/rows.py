"""The rows of a task's data set, loaded by `datasets`."""

from typing import Any, NamedTuple

from training.errors import UsageError
from training.evaluations.tasks.definitions import DataSource, QuestionTask, Task, TextTask
from training.evaluations.tasks.prompts import Example
from training.trainer.data import AnyDataset, open_data_set
from training.trainer.recipe import DataConfig


class TaskRows(NamedTuple):
    """The rows that are asked, and examples that stand before each."""

    asked: list[dict[str, Any]]
    examples: tuple[Example, ...]


def load_rows(task: Task, limit: int | None, few_shot: int = 0) -> TaskRows:
    """The first rows of a task's data, and examples from where the task has them; else its first
    rows are the examples, and are not asked. Documents have no examples.

    Raises `UsageError` where rows lack a column or are too few, and for a stream that nothing ends.
    """
    source = task.data
    if source.streaming and limit is None:
        raise UsageError(
            f"the data set {source.path} is streamed: say how much of it, with --limit"
        )
    if isinstance(task, TextTask) or not few_shot:
        return TaskRows(_read(task, source, limit), ())
    if task.examples is not None:
        shown, asked = _read(task, task.examples, few_shot), _read(task, source, limit)
    else:
        rows = _read(task, source, None if limit is None else few_shot + limit)
        shown, asked = rows[:few_shot], rows[few_shot:]
    return TaskRows(asked, _examples(task, shown, asked, few_shot))


def _examples(
    task: QuestionTask, shown: list[dict[str, Any]], asked: list[Any], few_shot: int
) -> tuple[Example, ...]:
    if len(shown) < few_shot or not asked:
        source = task.examples or task.data
        rest = "" if task.examples else ", which leaves none to ask"
        raise UsageError(
            f"--few-shot is {few_shot}, but the data set {source.path} has {len(shown)} rows{rest}"
        )
    return tuple(task.example(row) for row in shown)


def _read(task: Task, source: DataSource, limit: int | None) -> list[dict[str, Any]]:
    config = DataConfig(path=source.path, name=source.name, streaming=source.streaming)
    rows: AnyDataset = open_data_set(config, source.path, source.split)
    if limit is not None:
        rows = rows.take(limit) if source.streaming else rows.select(range(min(limit, len(rows))))
    found = [dict(row) for row in rows]
    missing = [column for column in task.columns if column not in found[0]]
    if missing:
        raise UsageError(
            f"the data set {source.path} has no column {missing[0]!r} but {', '.join(found[0])}"
        )
    return found
