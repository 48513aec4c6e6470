"""What is known of a request from what the server counts."""

import pytest

from loadtest.records import Record


def record(**fields: object) -> Record:
    """An answer of ten visible tokens."""
    times = [float(n) for n in range(10)]
    made = {"index": 0, "scheduled": 0.0, "asked_tokens": 10, "token_times": times, **fields}
    return Record.model_validate(made)


@pytest.mark.parametrize(
    ("fields", "thoughts", "passes"),
    [
        ({"budget": 0, "thought_tokens": 0}, 0, 10),
        ({"budget": 4, "thought_tokens": 40}, 10, 50),
        # Its budget for the whole answer was spent early.
        ({"budget": 4, "thought_tokens": 11}, 3, 21),
        # A server that counts no thought tokens.
        ({"budget": 4}, None, 50),
        ({"budget": None}, None, None),
        ({"budget": None, "thought_tokens": 40}, None, None),
        # START has a pass of its own behind a gate: 10 + 12 + 3.
        ({"budget": 4, "thought_tokens": 12, "threshold": 0.1}, 3, 25),
        ({"budget": 4, "thought_tokens": 0, "threshold": 0.1}, 0, 10),
        ({"budget": 4, "threshold": 0.1}, None, None),
        ({"budget": 4, "thought_tokens": 40, "threshold": 0.0}, 10, 50),
        # The server's own threshold, which was not asked for.
        ({"budget": 4, "thought_tokens": 12, "threshold_in_force": 0.1}, 3, 25),
        # The server's own counts win.
        (
            {"budget": 4, "thought_tokens": 12, "threshold": 0.1, "thoughts_counted": 4},
            *(4, 26),
        ),
        ({"budget": 4, "thought_tokens": 40, "passes_counted": 47}, 10, 47),
        ({"budget": None, "thoughts_counted": 2, "passes_counted": 20}, 2, 20),
    ],
)
def test_passes_are_those_of_what_was_really_thought(
    fields: dict[str, object], thoughts: int | None, passes: int | None
) -> None:
    found = record(**fields)
    assert (found.thoughts, found.passes) == (thoughts, passes)
