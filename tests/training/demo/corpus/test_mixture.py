"""Word problems among real text: what is written, and what is held out."""

import gzip
import itertools
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.training.demo.corpus.test_spelled import solve
from training.cli import main
from training.demo.corpus.mixture import (
    UNWORKED,
    WORKED,
    TextRow,
    docstrings,
    is_held_out_text,
    mixed,
    paragraphs,
    real_texts,
    told,
)

RUNNING = (
    "The garden behind the house has been quiet for many years, and nobody who lives on this "
    "street remembers when anyone was last seen in it, or why."
)
FILES = (
    "lesson",
    "thinking",
    "held-out",
    "held-out-real",
    "held-out-numbers",
    "held-out-choices",
    "held-out-answers",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The rows of every file, by its name."""
    folder: Path = tmp_path_factory.mktemp("mixture")
    with gzip.open(folder / "more.txt.gz", "wt") as file:
        file.write(f"{RUNNING}\n\n1 2 3 4\n")
    command = ["real-corpus", "--out", str(folder / "text"), "--documents", "600"]
    with pytest.MonkeyPatch.context() as patch:
        # Of Python's documentation only that of the language: reading all modules takes a while.
        patch.setattr(sysconfig, "get_path", lambda name: str(folder))
        assert main([*command, "--text", str(folder / "more.txt.gz")]) == 0
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / "text").iterdir()
    }


def is_problem(row: TextRow) -> bool:
    return row["prompt"] != ""


def test_paragraphs_of_running_english_are_kept() -> None:
    table = "| a | b |\n" * 40
    unfinished, other = RUNNING.removesuffix("."), RUNNING.replace("garden", "orchard")
    texts = [f"{RUNNING}\n\nshort\n\n{table}\n\n{unfinished}\n\n* {other}", RUNNING]
    assert list(paragraphs(texts)) == [RUNNING, other]
    wrapped = RUNNING.replace(" and ", "\n    and ")
    assert list(paragraphs([wrapped, RUNNING])) == [RUNNING]


def test_docstrings_are_found_everywhere() -> None:
    source = '"A module."\nclass A:\n    "A class."\n    def f(self):\n        "A method."\n'
    assert set(docstrings(source)) == {"A module.", "A class.", "A method."}


def test_pythons_documentation_comes_first_then_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "module.py").write_text('"""A module."""\n')
    (tmp_path / "a.txt").write_text(RUNNING)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "library"))
    texts = list(real_texts([tmp_path / "a.txt"]))
    assert texts[-2:] == ["A module.", RUNNING]
    assert len(list(paragraphs(texts[:-2]))) > 100


def test_problems_are_told_with_their_working_or_without() -> None:
    worked = list(itertools.islice(told(0, WORKED), 300))
    shown = [row for row in worked if "---" in row["text"]]
    assert 0.6 < len(shown) / len(worked) < 0.95
    for row in shown:
        totals = solve(row["prompt"].removeprefix("Show your work. "))
        working, answer = row["text"].split("---")[1:]
        steps = [step for step in working.split() if step != "..."]
        # A working may be cut short, and then filled up, but never says anything else.
        assert steps == totals[: len(steps)]
        assert answer.split()[0] == totals[-1]
    for row in itertools.islice(told(0, UNWORKED), 100):
        assert "---" not in row["text"]
        assert row["text"].split()[0] == solve(row["prompt"])[-1]


def test_real_text_has_its_share_and_comes_round() -> None:
    problems = itertools.repeat({"prompt": "p", "text": "t"})
    rows = list(itertools.islice(mixed(problems, ["a", "b", "c"], 0.5, seed=0), 2000))
    real = [row["text"] for row in rows if not is_problem(row)]
    assert 0.45 < len(real) / len(rows) < 0.55
    assert set(real[:3]) == {"a", "b", "c"}
    assert real[3:6] == real[:3]
    again = list(itertools.islice(mixed(problems, ["a", "b", "c"], 0.5, seed=0), 2000))
    assert again == rows


def test_what_the_command_writes(written: dict[str, list[Any]]) -> None:
    assert sorted(written) == sorted(FILES)
    assert len(written["lesson"]) == len(written["thinking"]) == 600
    assert len(written["held-out-numbers"]) == len(written["held-out-choices"]) == 400
    for row in written["held-out-numbers"]:
        working, _, answer = row["answer"].partition("\n#### ")
        totals = solve(row["question"])
        assert answer == totals[-1]
        assert working.split() == totals[: len(working.split())]
    for row in written["held-out-answers"]:
        assert row["expected"].split()[0] == solve(row["prompt"])[-1]
    for row in written["held-out-choices"]:
        labels, texts = row["choices"]["label"], row["choices"]["text"]
        assert labels == [*"ABCDE"]
        assert len(set(texts)) == 5
        assert texts[labels.index(row["answerKey"])] == solve(row["question"])[-1]
    kinds = [is_problem(row) for row in written["held-out"]]
    assert kinds == [True, False] * (len(kinds) // 2)


def test_nothing_that_is_trained_on_is_held_out(written: dict[str, list[Any]]) -> None:
    trained = written["lesson"] + written["thinking"]
    real = {row["text"] for row in trained if not is_problem(row)}
    assert not any(map(is_held_out_text, real))
    held_out = {row["text"] for row in written["held-out-real"]}
    assert held_out
    assert all(map(is_held_out_text, held_out))
    # By what a problem asks, free of names and things.
    asked = {row["question"].split(" ", 2)[2] for row in written["held-out-numbers"]}
    prompts = " ".join(row["prompt"] for row in trained)
    assert not any(question in prompts for question in asked)
