"""Files of held-out problems, for load tests and evaluations."""

import json
from pathlib import Path

from training.cli import main
from training.demo.problem_files import MAKERS
from training.evaluations.tasks.definitions import TASKS

EXAMPLE = Path(__file__).parents[3] / "loadtest/examples/demo-answers.jsonl"


def test_problems_are_written_with_their_whole_answers(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    assert main(["demo-answers", str(file), "--problems", "3"]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["family"] for line in lines] == ["dial", "story"] * 3
    for line in lines:
        number, *ending = line["expected"].rstrip(".").split()
        assert number.isdigit()
        assert len(ending) == (line["family"] == "story")
        assert line["prompt"].split()[-1] in ("shows", "has")


def test_the_example_of_the_load_tester_has_that_form() -> None:
    lines = [json.loads(line) for line in EXAMPLE.read_text().splitlines()]
    assert len({line["prompt"] for line in lines}) == len(lines) == 200
    assert all(set(line) == {"prompt", "expected", "family"} for line in lines)


def test_the_rows_of_the_tasks_are_the_held_out_problems(tmp_path: Path) -> None:
    assert main(["demo-rows", str(tmp_path), "--problems", "100"]) == 0
    for name in MAKERS:
        assert (TASKS / f"{name}.jsonl").read_text() == (tmp_path / f"{name}.jsonl").read_text()
    for line in (TASKS / "demo-choices.jsonl").read_text().splitlines():
        choices = json.loads(line)["choices"]["text"]
        assert len(set(choices)) == 5
