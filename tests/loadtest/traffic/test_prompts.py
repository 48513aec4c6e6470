"""Prompts: synthetic ones, and those of files."""

import json
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.traffic.lengths import Constant, parse_lengths
from loadtest.traffic.plan import PromptPlan
from loadtest.traffic.prompts import PromptPosition, SyntheticPrompts, file_prompts, is_correct
from loadtest.traffic.words import Vocabulary, count_by_words

POSITION = PromptPosition(seed=1, cell=2, repeat=3, index=4)


def count_words(text: str) -> int:
    return len(text.split())


def synthetic(vocabulary: Vocabulary, share: float = 0.0) -> SyntheticPrompts:
    return SyntheticPrompts(
        vocabulary, parse_lengths("uniform:10-20"), parse_lengths("uniform:1-64"), 5, share
    )


def test_a_prompt_depends_on_its_position_alone() -> None:
    first, second = synthetic(count_by_words()), synthetic(count_by_words())
    assert first.at(POSITION) == second.at(POSITION)
    # Other cells of a repeat have other words of the same lengths.
    other = second.at(PromptPosition(seed=1, cell=9, repeat=3, index=4))
    assert other.text != first.at(POSITION).text
    assert count_words(other.text) == count_words(first.at(POSITION).text)
    assert other.max_tokens == first.at(POSITION).max_tokens


def test_a_share_of_the_prompts_has_the_same_prefix() -> None:
    prompts = synthetic(count_by_words(), share=0.3)
    drawn = [prompts.at(PromptPosition(1, 0, 0, index)).text.split() for index in range(1000)]
    longest = [words for words in drawn if words[:6] == max(drawn, key=len)[:6]]
    assert 250 < len(longest) < 350
    assert all(15 <= len(words) <= 25 for words in longest)


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "prompts"
    path.write_text(content)
    return path


def test_every_prompt_of_a_file_is_used_once_before_one_is_used_again(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a"}\n\n{"prompt": "b", "max_tokens": 3}\n{"prompt": "c"}\n')
    prompts = file_prompts(PromptPlan("jsonl", path), count_words)
    drawn = [prompts.at(PromptPosition(0, 0, 0, index)) for index in range(6)]
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
    assert fixed.at(POSITION).max_tokens == 9


def test_sharegpt_has_other_forms_and_more_turns(tmp_path: Path) -> None:
    """JSONL with messages, and turns of a conversation one after the other."""
    said = [("system", "be brief"), ("user", "one"), ("assistant", "a b"), ("user", "two")]
    said += [("assistant", "c")]
    messages = [{"role": role, "content": text} for role, text in said]
    short = {"messages": messages[:3]}
    lines = [{"messages": messages}, short, {"messages": [*messages[1:], *messages[1:]]}]
    path = write(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))
    single = file_prompts(PromptPlan("sharegpt", path), count_words)
    assert [(line.text, line.max_tokens) for line in single.lines] == [("one", 2)] * 3
    prompts = file_prompts(PromptPlan("sharegpt", path, turns=2), count_words)
    assert prompts.description == "prompts, 2 conversations of 2 turns"
    drawn = [prompts.at(PromptPosition(0, 0, 0, index)) for index in range(6)]
    assert [(prompt.text, prompt.max_tokens) for prompt in drawn] == [("one", 2), ("two", 1)] * 3


def test_prompts_with_answers_have_the_expected_text(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "1+1=", "expected": " 2"}\n')
    prompts = file_prompts(PromptPlan("answers", path), count_words)
    assert prompts.at(POSITION).expected == " 2"


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


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="No such file"):
        file_prompts(PromptPlan("jsonl", tmp_path / "none"), count_words)
