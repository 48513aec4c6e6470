"""The rows of a task's data set, loaded by `datasets`."""

from typing import Any

from training.errors import UsageError
from training.evaluations.tasks.definitions import Task
from training.trainer.data import open_data_set
from training.trainer.recipe import DataConfig


def load_rows(task: Task, limit: int | None) -> list[dict[str, Any]]:
    """The first rows of a task's data; raises `UsageError` where they lack a column, and for a
    stream that nothing ends.
    """
    source = task.data
    if source.streaming and limit is None:
        raise UsageError(
            f"the data set {source.path} is streamed: say how much of it, with --limit"
        )
    config = DataConfig(path=source.path, name=source.name, streaming=source.streaming)
    rows = open_data_set(config, source.path, source.split)
    if limit is not None:
        rows = rows.take(limit) if source.streaming else rows.select(range(min(limit, len(rows))))
    found = [dict(row) for row in rows]
    missing = [column for column in task.columns if column not in found[0]]
    if missing:
        raise UsageError(
            f"the data set {source.path} has no column {missing[0]!r} but {', '.join(found[0])}"
        )
    return found
