"""The rows of a task's data set."""

import json
from pathlib import Path
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
        assert len(load_rows(load_task(name)[1], limit=2).asked) == 2
    gsm8k = {"path": "openai/gsm8k", "name": "main", "split": "test", "streaming": False}
    commonsense = {"path": "tau/commonsense_qa", "name": None, "split": "validation"}
    assert asked == [gsm8k, gsm8k, {**commonsense, "streaming": False}]
    text = load_task("openwebmath")[1]
    with pytest.raises(UsageError, match="say how much of it, with --limit"):
        load_rows(text, limit=None)


def test_examples_come_from_where_a_task_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load_dataset(**what: Any) -> Any:
        asked.append(what)
        rows = [{"question": what["split"], "answer": f"#### {n}"} for n in range(4)]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(data, "load_dataset", load_dataset)
    rows = load_rows(load_task("gsm8k")[1], limit=3, few_shot=2)
    assert [what["split"] for what in asked] == ["train", "test"]
    assert [row["question"] for row in rows.asked] == ["test"] * 3
    assert rows.examples == (("Q: train\nA:", " 0\n"), ("Q: train\nA:", " 1\n"))


def test_without_examples_of_its_own_a_tasks_first_rows_are_examples(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"q{n}", "answer": f"#### {n}"} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, task = load_task("gsm8k", str(file))
    found = load_rows(task, limit=1, few_shot=2)
    assert [row["question"] for row in found.asked] == ["q2"]
    assert [example.question for example in found.examples] == ["Q: q0\nA:", "Q: q1\nA:"]
    assert len(load_rows(task, limit=None, few_shot=3).asked) == 1
    for number in (4, 5):
        with pytest.raises(UsageError, match=f"--few-shot is {number}, but .* leaves none to ask"):
            load_rows(task, limit=None, few_shot=number)
