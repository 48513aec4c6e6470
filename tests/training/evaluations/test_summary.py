"""The measures of a task."""

import math
from typing import Any

import pytest

from training.evaluations.summary import (
    corpus_likelihood,
    cost_summary,
    difficulty,
    estimates,
    mixing_weight,
)
from training.evaluations.sweep import Cell


def document(base: list[float], own: list[float]) -> dict[str, Any]:
    return {
        "outcomes": {"0": {"nll": base}, "4": {"nll": own}},
        "bytes": 10 * len(base),
        "words": len(base),
    }


def test_perplexity_and_gain_of_documents() -> None:
    items = [document([0.05, 2.0], [0.05, 1.0]), document([4.0], [3.5])]
    found = estimates("text", items, Cell(4))
    assert found["nll"].value == pytest.approx(4.55 / 3)
    assert found["perplexity"].value == pytest.approx(math.exp(4.55 / 3))
    assert found["gain"].value == pytest.approx(0.5)
    assert corpus_likelihood(items, Cell(4))["word_perplexity"] == pytest.approx(math.exp(4.55 / 3))
    assert corpus_likelihood(items, Cell(0))["bits_per_byte"] == pytest.approx(
        6.05 / 30 / math.log(2)
    )
    easy, hard, hardest = difficulty(items, Cell(4))
    assert (easy["from"], easy["below"], easy["tokens"]) == (0.0, 0.1, 1)
    assert (hard["from"], hard["gain"]["value"]) == (1.0, 1.0)
    assert (hardest["below"], hardest["gain"]["value"]) == (None, 0.5)


def test_the_mean_weight_is_that_of_what_was_thought_about() -> None:
    items = [document([1.0, 1.0], [1.0, 1.0]), document([1.0], [1.0]), document([1.0], [1.0])]
    items[0]["outcomes"]["4"]["weights"] = [0.25, None]
    items[1]["outcomes"]["4"]["weights"] = [0.75]
    for item, thoughts in zip(items, (1, 1, 0), strict=True):
        for cell in ("0", "4"):
            cost = {"tokens": 2, "thoughts": thoughts if cell == "4" else 0}
            item["outcomes"][cell]["cost"] = cost
    found = mixing_weight(items, Cell(4))
    assert found is not None
    assert found["value"] == pytest.approx(0.5)
    assert mixing_weight(items, Cell(0)) is None
    # Of one document the server has not told it.
    items[2]["outcomes"]["4"]["cost"]["thoughts"] = 1
    assert mixing_weight(items, Cell(4)) is None


def test_costs_are_those_of_all_items_together() -> None:
    costs = [{"tokens": 4, "thoughts": 1, "thought_tokens": 3}, {"tokens": 6, "thoughts": 0}]
    items = [{"outcomes": {"3@0.5": {"cost": {"thought_tokens": 0, **cost}}}} for cost in costs]
    assert cost_summary(items, Cell(3, 0.5)) == {
        "tokens": 10,
        "thoughts": 1,
        "thought_tokens": 3,
        "thought_about": 0.1,
        "passes_per_token": 1.4,
    }
