"""The settings of a training step."""

import pytest

from training.config import Thinking
from training.errors import UsageError


@pytest.mark.parametrize(
    "wrong", [{"budget": -1}, {"ahead": 0}, {"per_position": 0}, {"temperature": 0.0}]
)
def test_impossible_thoughts_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is "):
        Thinking(**wrong)
