"""A start that takes long says so, and how long it has taken."""

import threading

import pytest

from server.engine.reminder import SECONDS, remind, reminder


def test_a_line_for_every_wait_until_the_start_has_ended() -> None:
    waits: list[float] = []
    lines: list[str] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 3

    remind(wait, lines.append)
    assert waits == [SECONDS] * 3
    assert lines[0].startswith(f"Still starting after {SECONDS} s.")
    assert lines[1].startswith(f"Still starting after {2 * SECONDS} s ")
    assert "compiled" in lines[0]


def test_a_quick_start_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with reminder():
        pass
    assert capsys.readouterr().out == ""


def test_a_start_that_fails_ends_it() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), reminder():
        raise RuntimeError
    assert threading.active_count() == before
