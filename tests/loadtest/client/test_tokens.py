"""Counting tokens."""

import random
from pathlib import Path

import pytest

from loadtest.client.probe import ServerFacts
from loadtest.client.tokens import token_count
from loadtest.errors import LoadTestError
from loadtest.traffic.lengths import parse_lengths
from loadtest.traffic.plan import PromptPlan, Target
from loadtest.traffic.prompts import SyntheticPrompts, file_prompts
from loadtest.traffic.words import Vocabulary, count_by_tokens
from tests.server.processes import DEMO


def count_words(text: str) -> int:
    return len(text.split())


def synthetic(vocabulary: Vocabulary, share: float = 0.0) -> SyntheticPrompts:
    return SyntheticPrompts(
        vocabulary, parse_lengths("uniform:10-20"), parse_lengths("uniform:1-64"), 5, share
    )


def test_lengths_are_counted_in_the_tokenizers_tokens() -> None:
    facts = ServerFacts("http://unused", "demo", None, None)
    with token_count(str(DEMO), Target("http://unused"), facts) as count:
        assert count is not None
        prompts = synthetic(count_by_tokens(count))
        rng = random.Random(0)
        for length in (40, 100, 333):
            text = prompts.vocabulary.text(rng, length)
            cheapest = min(cost for _, cost in prompts.vocabulary.costs)
            assert length - cheapest < count(text) <= length
        assert "tokens" in prompts.description


def test_a_missing_file_and_tokenizer_are_explained(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="No such file"):
        file_prompts(PromptPlan("jsonl", tmp_path / "none"), count_words)
    (tmp_path / "tokenizer.json").write_text("{}")
    facts = ServerFacts("http://unused", "demo", None, None)
    with (
        pytest.raises(LoadTestError, match="no tokenizer in"),
        token_count(str(tmp_path), Target("http://unused"), facts),
    ):
        pass
