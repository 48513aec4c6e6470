"""How a gate is fitted: what is refused."""

from typing import Any

import pytest

from quietstar_infer.gate import GateConfig
from training.errors import UsageError
from training.gate.settings import GateSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budgets": (0, 4)}, "expected whole numbers above 0"),
        ({"hidden_size": 0}, "hidden_size is 0, expected 1 or more"),
        ({"documents": 9}, "documents is 9, expected 10 or more"),
        ({"document_tokens": 1}, "document_tokens is 1, expected 2 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GateSettings(**settings)


def test_budgets_are_sorted() -> None:
    assert GateSettings(hidden_size=8).gate_config((4, 2, 4)) == GateConfig(8, (2, 4))
