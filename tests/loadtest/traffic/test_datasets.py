"""Data sets: local files, folders, and names of the hub."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import LoadTestError
from loadtest.scenarios import load_scenario
from loadtest.traffic.datasets import DataSet, parse_columns
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import PromptPlan
from loadtest.traffic.prompts import FilePrompts, file_prompts

ROWS: list[dict[str, Any]] = [
    {"question": "two and two?", "answer": 4, "limit": 3, "of": "sums"},
    {"question": "the sea is", "answer": "wide", "limit": 9, "of": "words"},
]
COLUMNS = "prompt=question, expected=answer, max_tokens=limit"


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [{**row, "answer": str(row["answer"])} for row in rows]
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(texts), path)


def prompts_of(name: Path | str, columns: str, **more: Any) -> FilePrompts:
    data = DataSet(str(name), parse_columns(columns), **more)
    return file_prompts(PromptPlan("table", table=data), lambda text: len(text.split()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_jsonl),
        ("a.json", write_json),
        ("a.csv", write_csv),
        ("a.parquet", write_parquet),
    ],
)
def test_the_columns_of_a_file_are_chosen(
    tmp_path: Path, name: str, write: Callable[[Path, Sequence[dict[str, Any]]], None]
) -> None:
    write(tmp_path / name, ROWS)
    prompts = prompts_of(tmp_path / name, COLUMNS)
    assert [tuple(line) for line in prompts.lines] == [
        ("two and two?", 3, "4"),
        ("the sea is", 9, "wide"),
    ]
    assert "2 prompts" in prompts.description


def test_a_folder_is_read_with_the_library_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write_csv(folder / "train.csv", ROWS)
    write_csv(folder / "test.csv", ROWS[:1])
    assert len(prompts_of(folder, COLUMNS).lines) == 2
    assert len(prompts_of(folder, COLUMNS, split="test").lines) == 1
    with pytest.raises(LoadTestError, match=r'--dataset .*: Unknown split "validation"'):
        prompts_of(folder, COLUMNS, split="validation")


def test_conversations_are_turns_of_sessions(tmp_path: Path) -> None:
    said = ["you are kind", "hello", "good day to you", "and now", "we talk"]
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]
    path = tmp_path / "talks.jsonl"
    write_jsonl(path, [{"messages": messages}, {"messages": messages[:3]}])
    data = DataSet(str(path), parse_columns("conversation=messages"))
    words = PromptPlan("table", table=data, turns=2)
    prompts = file_prompts(words, lambda text: len(text.split()))
    assert [tuple(line) for line in prompts.lines] == [("hello", 4, None), ("and now", 2, None)]
    fixed = file_prompts(
        PromptPlan("table", table=data, output_lengths=Constant(7)), lambda text: 1
    )
    assert [(line.text, line.max_tokens) for line in fixed.lines] == [("hello", None)] * 2


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ('{"text": "a"}', "prompt=prompt", r"no column 'prompt' \(text\): choose with --columns"),
        ('{"text": ""}', "prompt=text", "row 1: prompt is no text"),
        ('{"text": "a"}\n{"text": 3}', "prompt=text", "row 2: prompt is no text"),
        ('{"text": "a", "n": "x"}', "prompt=text,max_tokens=n", "row 1: invalid literal"),
        ('{"text": "a"}\nb', "prompt=text", "line 2 is no JSON"),
        ("[1]", "prompt=text", "not an object"),
        ('{"text": "a"}', "conversation=text", "row 1: "),
        ("", "prompt=text", "there are none in it"),
    ],
)
def test_a_file_of_another_form_is_explained(
    tmp_path: Path, content: str, columns: str, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(LoadTestError, match=message):
        prompts_of(path, columns)


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(LoadTestError, match=r"known kind \(\.jsonl, \.json, \.csv, \.parquet\)"):
        prompts_of(tmp_path / "a.txt", "prompt=text")
    (tmp_path / "a.parquet").write_text("a")
    with pytest.raises(LoadTestError, match="Parquet"):
        prompts_of(tmp_path / "a.parquet", "prompt=text")


def test_without_the_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LoadTestError, match="pip install datasets"):
        prompts_of("someone/problems", COLUMNS)


def test_without_a_network_the_message_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(LoadTestError) as raised:
        prompts_of("someone/problems", COLUMNS)
    assert str(raised.value) == (
        "--dataset someone/problems: there is no such file, and the hub cannot be reached"
    )


@pytest.mark.parametrize(
    "text", ["", "prompt", "prompt=", "question=a", "expected=a", "prompt=a,prompt=b"]
)
def test_columns_that_give_no_prompt_are_refused(text: str) -> None:
    with pytest.raises(LoadTestError, match="not like prompt=question"):
        parse_columns(text)


@pytest.mark.parametrize("source", ["--prompts", "--sharegpt", "--dataset"])
def test_a_source_of_prompts_takes_the_place_of_a_scenarios_answers(source: str) -> None:
    assert "--answers" not in load_scenario("budget-sweep").arguments([source, "a.jsonl"])


def test_a_prompt_and_a_conversation_cannot_both_be_read() -> None:
    with pytest.raises(LoadTestError, match="not like prompt=question"):
        parse_columns("prompt=a,conversation=b")
