"""Prompts: synthetic ones, and those of files."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.client.probe import ServerFacts
from loadtest.client.tokens import token_count
from loadtest.errors import LoadTestError
from loadtest.traffic.lengths import Constant, parse_lengths
from loadtest.traffic.plan import PromptPlan, Target
from loadtest.traffic.prompts import Place, SyntheticPrompts, file_prompts, is_correct
from loadtest.traffic.words import OPENING, Vocabulary, count_by_tokens, count_by_words
from tests.support.servers import DEMO

PLACE = Place(seed=1, cell=2, repeat=3, index=4)


def count_words(text: str) -> int:
    return len(text.split())


def synthetic(vocabulary: Vocabulary, share: float = 0.0) -> SyntheticPrompts:
    return SyntheticPrompts(
        vocabulary, parse_lengths("uniform:10-20"), parse_lengths("uniform:1-64"), 5, share
    )


def test_a_prompt_depends_on_its_place_alone() -> None:
    first, second = synthetic(count_by_words()), synthetic(count_by_words())
    assert first.at(PLACE) == second.at(PLACE)
    # Other cells of a repeat have other words of the same lengths.
    other = second.at(Place(seed=1, cell=9, repeat=3, index=4))
    assert other.text != first.at(PLACE).text
    assert count_words(other.text) == count_words(first.at(PLACE).text)
    assert other.max_tokens == first.at(PLACE).max_tokens


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


def test_a_share_of_the_prompts_begins_alike() -> None:
    prompts = synthetic(count_by_words(), share=0.3)
    drawn = [prompts.at(Place(1, 0, 0, index)).text.split() for index in range(1000)]
    longest = [words for words in drawn if words[:6] == max(drawn, key=len)[:6]]
    assert 250 < len(longest) < 350
    assert all(15 <= len(words) <= 25 for words in longest)


def test_text_of_words_of_many_costs_is_a_little_short_at_most() -> None:
    vocabulary = Vocabulary((("long", 7), ("longer", 9)), 2, "tokens")
    for length in range(2, 60):
        words = vocabulary.text(random.Random(length), length).split()
        assert words[0] == OPENING
        rest = length - 2 - sum(dict(vocabulary.costs)[word] for word in words[1:])
        assert 0 <= rest < 7


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "prompts"
    path.write_text(content)
    return path


def test_jsonl_prompts_come_all_once_before_one_comes_again(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a"}\n\n{"prompt": "b", "max_tokens": 3}\n{"prompt": "c"}\n')
    prompts = file_prompts(PromptPlan("jsonl", path), count_words)
    drawn = [prompts.at(Place(0, 0, 0, index)) for index in range(6)]
    assert {prompt.text for prompt in drawn[:3]} == {"a", "b", "c"}
    assert drawn[3:] == drawn[:3]
    assert {prompt.text: prompt.max_tokens for prompt in drawn} == {"a": 64, "b": 3, "c": 64}
    assert "3 prompts" in prompts.description


def test_sharegpt_gives_the_first_turn_and_the_length_of_its_answer(tmp_path: Path) -> None:
    conversations = [
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "x y z"}]},
        {"conversations": [{"from": "human", "value": "alone"}]},
    ]
    path = write(tmp_path, json.dumps(conversations))
    recorded = file_prompts(PromptPlan("sharegpt", path), count_words)
    assert [(line.text, line.max_tokens) for line in recorded.lines] == [("hi", 3)]
    fixed = file_prompts(PromptPlan("sharegpt", path, output_lengths=Constant(9)), count_words)
    assert fixed.at(PLACE).max_tokens == 9


def test_answers_have_what_is_expected(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "1+1=", "expected": " 2"}\n')
    prompts = file_prompts(PromptPlan("answers", path), count_words)
    assert prompts.at(PLACE).expected == " 2"


@pytest.mark.parametrize(
    ("source", "content", "words"),
    [
        ("jsonl", "", "there are none"),
        ("jsonl", '{"prompt": "a"}\n{"text": "b"}', r"line 2 is not like {\"prompt\""),
        ("jsonl", '{"prompt": ""}', "prompt is no text"),
        ("jsonl", '{"prompt": "a", "max_tokens": 0}', "max_tokens is 0"),
        ("jsonl", '["a"]', "line 1"),
        ("jsonl", "a", "line 1"),
        ("answers", '{"prompt": "a"}', '"expected"'),
        ("answers", '{"prompt": "a", "expected": " "}', "expected is no text"),
        ("sharegpt", '{"a": 1}', "not like"),
        ("sharegpt", "[1]", "not like"),
        ("sharegpt", "no json", "prompts .*: "),
        ("sharegpt", "[]", "there are none"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, source: str, content: str, words: str) -> None:
    plan = PromptPlan(source, write(tmp_path, content))  # type: ignore[arg-type]
    with pytest.raises(LoadTestError, match=words):
        file_prompts(plan, count_words)


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


@pytest.mark.parametrize(
    ("text", "expected", "correct"),
    [
        (" 10 apples.", "10 apples.", True),
        ("10", " 10 ", True),
        (" 10 apples.\n\nBen has", "10", True),
        ("100", "10", False),
        ("10.5", "10", False),
        ("10. Then", "10", True),
        ("10,000", "10", False),
        ("9", "10", False),
        ("", "10", False),
        ("a+b", "a+b", True),
    ],
)
def test_what_counts_as_the_expected_answer(text: str, expected: str, correct: bool) -> None:
    assert is_correct(text, expected) is correct


def counted(costs: dict[str, int]) -> Callable[[str], int]:
    return lambda text: 1 + sum(costs.get(word, 2) for word in text.split())


def test_costs_are_measured_among_other_words() -> None:
    vocabulary = count_by_tokens(counted({"time": 1, OPENING: 1}))
    assert vocabulary.opening == 2  # with a token that the tokenizer adds
    assert dict(vocabulary.costs)["time"] == 1
    assert dict(vocabulary.costs)["year"] == 2
