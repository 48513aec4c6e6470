"""Values are counted as a JSON parser would find them, whatever is in the texts."""

import json

import pytest

from server.middleware.json_size import MAX_VALUES, has_too_many_values, has_too_much_text

MOST = MAX_VALUES - 2  # beside the list and its map


@pytest.mark.parametrize("value", [1, {}, [], "", "a,b", '"', "\\", '\\",{[', "\u2028", None])
def test_values_are_bounded_and_what_texts_contain_is_not_counted(value: object) -> None:
    for number in (MOST // 2, MOST * 2):
        body = json.dumps({"field": [value] * number}).encode()
        assert has_too_many_values(body) == (number > MOST)


def test_a_long_text_is_one_value() -> None:
    text = "{[,\\" * (2 * MAX_VALUES)
    assert not has_too_many_values(json.dumps({"prompt": text}).encode())


def test_names_are_texts_too() -> None:
    body = json.dumps({f'"{{,{number}': 1 for number in range(MOST // 2)}).encode()
    assert not has_too_many_values(body)


def test_other_encodings_are_bounded_by_what_looks_like_a_value() -> None:
    for encoding in ("utf-16", "utf-32"):
        assert not has_too_many_values(json.dumps([1] * 1000).encode(encoding))
        assert has_too_many_values(json.dumps([""] * (MOST * 2)).encode(encoding))


def test_what_is_not_json_is_bounded_too() -> None:
    quotes = b'"' * (8 * MAX_VALUES) + b"," * MAX_VALUES
    for body in (quotes, b"," * (2 * MAX_VALUES), b"[" * (2 * MAX_VALUES)):
        assert has_too_many_values(body)


@pytest.mark.parametrize("text", ["a", "\\", '"', '\\"', ",[{", "\n"])
def test_the_text_of_all_values_and_names_is_bounded(text: str) -> None:
    texts = [text * 600] * 2
    encoded = len(json.dumps(text)) - 2
    for value in (texts, {text * 600: text * 600}, [[texts[0]], {"": texts[1]}]):
        body = json.dumps([value, 12345.678]).encode()
        assert not has_too_much_text(body, 2 * 600 * encoded)
        assert has_too_much_text(body, 2 * 600 * encoded - 1)


def test_numbers_are_not_text() -> None:
    body = json.dumps({"prompt": [12345] * 10_000}).encode()
    assert not has_too_much_text(body, len("prompt"))
    assert has_too_much_text(json.dumps("a" * 1000).encode("utf-16"), 1000)
