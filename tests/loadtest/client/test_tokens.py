"""Counting tokens."""

import random
from pathlib import Path

import pytest

from loadtest.client.probe import ServerFacts
from loadtest.client.tokens import token_count
from loadtest.errors import LoadTestError
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import Target
from loadtest.traffic.prompts import SyntheticPrompts
from loadtest.traffic.words import count_by_tokens
from tests.support.servers import DEMO


def test_lengths_are_counted_in_the_tokenizers_tokens() -> None:
    facts = ServerFacts("http://unused", "demo", None, None)
    with token_count(str(DEMO), Target("http://unused"), facts) as count:
        assert count is not None
        prompts = SyntheticPrompts(count_by_tokens(count), Constant(20), Constant(64), 5, 0.0)
        rng = random.Random(0)
        for length in (40, 100, 333):
            text = prompts.vocabulary.text(rng, length)
            cheapest = min(cost for _, cost in prompts.vocabulary.costs)
            assert length - cheapest < count(text) <= length
        assert "tokens" in prompts.description


def test_an_unreadable_tokenizer_is_explained(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    facts = ServerFacts("http://unused", "demo", None, None)
    with (
        pytest.raises(LoadTestError, match="no tokenizer in"),
        token_count(str(tmp_path), Target("http://unused"), facts),
    ):
        pass
