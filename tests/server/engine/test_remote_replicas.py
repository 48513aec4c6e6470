"""Replicas that would not give the same answers are refused; what is real is in test_headless."""

from typing import Any

import pytest

from server.engine.remote_replicas import refuse_differences
from server.errors import StartError

ONE = {"vllm": "1", "quietstar": "2", "setup": {"limits": 3}, "weights": {"lm_head": "4"}}


def test_equal_replicas_are_accepted() -> None:
    refuse_differences("replica", [ONE, dict(ONE), dict(ONE)])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"vllm": "9"}, "replica 2 has another version of vLLM than replica 0"),
        ({"quietstar": "9"}, "another version of this server"),
        ({"setup": {"limits": 9}}, "another set of options about thinking"),
        ({"weights": {"lm_head": "9"}}, "another checkpoint"),
        ({"vllm": "9", "weights": {}}, "another version of vLLM and another checkpoint than"),
    ],
)
def test_a_difference_is_named(other: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError, match=words):
        refuse_differences("replica", [ONE, ONE, ONE | other])


def test_ranks_are_compared_by_their_checkpoints() -> None:
    """Each has other weights."""
    one = {"vllm": "1", "quietstar": "2", "setup": {}, "checkpoint": "4"}
    refuse_differences("rank", [one, dict(one)])
    with pytest.raises(StartError, match="rank 1 has another checkpoint than rank 0"):
        refuse_differences("rank", [one, one | {"checkpoint": "5"}])
