"""What of an answer is reasoning, and what is visible."""

import pytest

from loadtest.client.channels import Channels, split_tokens


def sorted_text(*pieces: str) -> tuple[str, str]:
    channels = Channels()
    for piece in pieces:
        channels.add("", piece)
    channels.finish()
    return channels.reasoning.text, channels.visible.text


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_tags_are_found_however_they_arrive(size: int) -> None:
    text = "\n<think>one < two</think>\n\nfour <think>"
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    thought, visible = sorted_text(*pieces)
    # A tag that comes in pieces leaves its beginning in the reasoning.
    assert thought.startswith("one < two")
    assert "</think>".startswith(thought.removeprefix("one < two"))
    assert visible == "\n\nfour <think>"


@pytest.mark.parametrize("text", ["", " ", "<", "<thin", "a <think>b</think>", "</think>"])
def test_text_that_does_not_begin_with_a_tag_is_visible(text: str) -> None:
    assert sorted_text(text) == ("", text)


def test_a_field_of_its_own_is_reasoning() -> None:
    channels = Channels()
    assert channels.add("", "") == ("", "")
    assert not channels.began
    assert channels.add("hm", "") == ("hm", "")
    assert channels.is_thinking
    assert channels.thinks_first
    assert channels.add("", "word") == ("", "word")
    assert not channels.is_thinking


@pytest.mark.parametrize(
    ("tokens", "thought", "visible", "thinking", "split"),
    [
        (3, 9, 0, True, (3, 0)),
        (3, 0, 9, True, (0, 3)),
        (3, 0, 0, True, (3, 0)),
        (3, 0, 0, False, (0, 3)),
        (4, 30, 10, True, (3, 1)),
        (4, 400, 1, True, (3, 1)),
        (4, 1, 400, True, (1, 3)),
        (1, 30, 10, True, (0, 1)),
    ],
)
def test_tokens_of_a_chunk_belong_to_its_text(
    tokens: int, thought: int, visible: int, thinking: bool, split: tuple[int, int]
) -> None:
    assert split_tokens(tokens, thought, visible, thinking) == split
