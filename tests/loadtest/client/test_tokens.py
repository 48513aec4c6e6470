"""Counting tokens."""

import random
from pathlib import Path

import pytest

from loadtest.client.probe import ServerFacts
from loadtest.client.tokens import token_count
from loadtest.errors import LoadTestError
from loadtest.sending.runner import prepare
from loadtest.testserver import Behaviour, running
from loadtest.traffic.lengths import Constant, parse_lengths
from loadtest.traffic.plan import PromptPlan, Target
from loadtest.traffic.prompts import SyntheticPrompts
from loadtest.traffic.words import count_by_tokens
from tests.support.loadtest.runs import run_one, small_plan
from tests.support.servers import DEMO


def test_lengths_are_counted_in_the_tokenizers_tokens() -> None:
    facts = ServerFacts("http://unused", "demo", None, None)
    with token_count(str(DEMO), Target("http://unused"), facts) as count:
        assert count is not None
        prompts = SyntheticPrompts(count_by_tokens(count), Constant(20), Constant(64), 5, 0.0)
        rng = random.Random(0)
        for length in (2, 3, 40, 100, 333):
            assert count(prompts.vocabulary.text(rng, length)) == length
        assert "tokens" in prompts.description


def test_an_unreadable_tokenizer_is_explained(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    facts = ServerFacts("http://unused", "demo", None, None)
    with (
        pytest.raises(LoadTestError, match="no tokenizer in"),
        token_count(str(tmp_path), Target("http://unused"), facts),
    ):
        pass


def prompts_of(length: str) -> PromptPlan:
    return PromptPlan(input_lengths=parse_lengths(length), output_lengths=Constant(1))


@pytest.mark.slow
@pytest.mark.usefixtures("reused_workers")
@pytest.mark.parametrize("tokenizes", [True, False])
@pytest.mark.parametrize(("chat", "length"), [(False, 1), (False, 64), (True, 4), (True, 64)])
def test_prompts_have_exactly_the_tokens_that_were_asked_for(
    tokenizes: bool, chat: bool, length: int
) -> None:
    """As the server counts them, its chat template included; of one without `/tokenize`, too."""
    with running(Behaviour(tokenizes=tokenizes)) as url:
        target, prompts = Target(url, chat=chat), prompts_of(str(length))
        plan = small_plan(url, target=target, prompts=prompts, requests=4)
        assert not prepare(plan).warnings
        cell = run_one(plan)
    assert {record.prompt_tokens for record in cell.records} == {length}


@pytest.mark.parametrize("length", ["1", "3", "uniform:3-9"])
def test_lengths_that_no_prompt_has_are_refused(url: str, length: str) -> None:
    plan = small_plan(url, target=Target(url, chat=True), prompts=prompts_of(length))
    with pytest.raises(LoadTestError, match="the shortest prompt has 4 tokens here"):
        prepare(plan)
    normal = prepare(
        small_plan(url, target=Target(url, chat=True), prompts=prompts_of("normal:9,sd=9"))
    )
    assert "(4 or more)" in normal.prompts
