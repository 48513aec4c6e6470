"""The measures of a task."""

import math
from typing import Any

import pytest

from training.evaluations.summary import corpus_likelihood, difficulty, estimates


def document(base: list[float], own: list[float]) -> dict[str, Any]:
    return {
        "outcomes": {"0": {"nll": base}, "4": {"nll": own}},
        "bytes": 10 * len(base),
        "words": len(base),
    }


def test_perplexity_and_gain_of_documents() -> None:
    items = [document([0.05, 2.0], [0.05, 1.0]), document([4.0], [3.5])]
    found = estimates("text", items, 4)
    assert found["nll"].value == pytest.approx(4.55 / 3)
    assert found["perplexity"].value == pytest.approx(math.exp(4.55 / 3))
    assert found["gain"].value == pytest.approx(0.5)
    assert corpus_likelihood(items, 4)["word_perplexity"] == pytest.approx(math.exp(4.55 / 3))
    assert corpus_likelihood(items, 0)["bits_per_byte"] == pytest.approx(6.05 / 30 / math.log(2))
    easy, hard, hardest = difficulty(items, 4)
    assert (easy["from"], easy["below"], easy["tokens"]) == (0.0, 0.1, 1)
    assert (hard["from"], hard["gain"]["value"]) == (1.0, 1.0)
    assert (hardest["below"], hardest["gain"]["value"]) == (None, 0.5)
