"""Results so far, which survive an interruption."""

import json
from pathlib import Path

import pytest

from training.errors import UsageError
from training.evaluations.record import ITEMS, Place, Record

RUN = {"model": "m", "seed": 1, "command": "first"}


def test_a_record_is_resumed_behind_its_last_complete_line(tmp_path: Path) -> None:
    record = Record(tmp_path / "out", RUN, resume=False)
    for number in (1, 0):
        record.add(Place("thinker", "t", number), {"outcomes": {"0": number}})
    record.close()
    with (tmp_path / "out" / ITEMS).open("a") as lines:
        lines.write('{"who": "thinker", "task": "t", "nu')  # cut short
    again = Record(tmp_path / "out", {**RUN, "command": "second"}, resume=True)
    assert Place("thinker", "t", 1) in again
    assert Place("thinker", "t", 2) not in again
    again.add(Place("thinker", "t", 2), {"outcomes": {"0": 2}})
    again.close()
    assert [item["outcomes"]["0"] for item in again.of("thinker", "t")] == [0, 1, 2]
    lines_now = (tmp_path / "out" / ITEMS).read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines_now] == [1, 0, 2]


def test_another_evaluation_is_not_resumed(tmp_path: Path) -> None:
    record = Record(tmp_path / "out", RUN, resume=False)
    record.add(Place("thinker", "t", 0), {"outcomes": {}})
    record.close()
    with pytest.raises(UsageError, match="another seed: 1, not 2"):
        Record(tmp_path / "out", RUN | {"seed": 2}, resume=True)
    with pytest.raises(UsageError, match="add --resume"):
        Record(tmp_path / "out", RUN, resume=False)


def test_without_a_result_nothing_is_written(tmp_path: Path) -> None:
    """So that a command that failed can be corrected."""
    Record(tmp_path / "out", RUN, resume=False).close()
    assert not list((tmp_path / "out").iterdir())
    Record(tmp_path / "out", RUN | {"seed": 2}, resume=False).close()
