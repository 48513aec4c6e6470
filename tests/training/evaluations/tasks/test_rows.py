"""The rows of a task's data set."""

from typing import Any

import datasets  # type: ignore[import-untyped]
import pytest

from training.errors import UsageError
from training.evaluations.tasks.definitions import load_task
from training.evaluations.tasks.rows import load_rows
from training.trainer import data


def test_public_data_sets_are_fetched_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not reached in tests: what it would be asked for."""
    asked: list[dict[str, Any]] = []

    def load_dataset(**what: Any) -> Any:
        asked.append(what)
        row = {"question": "a", "answer": "#### 1", "choices": {}, "answerKey": "A", "text": "b"}
        return datasets.Dataset.from_list([row, row, row])

    monkeypatch.setattr(data, "load_dataset", load_dataset)
    for name in ("gsm8k", "gsm8k-chain", "commonsense-qa"):
        assert len(load_rows(load_task(name)[1], limit=2)) == 2
    gsm8k = {"path": "openai/gsm8k", "name": "main", "split": "test", "streaming": False}
    commonsense = {"path": "tau/commonsense_qa", "name": None, "split": "validation"}
    assert asked == [gsm8k, gsm8k, {**commonsense, "streaming": False}]
    text = load_task("openwebmath")[1]
    with pytest.raises(UsageError, match="say how much of it, with --limit"):
        load_rows(text, limit=None)
