"""What a JSON schema allows, as xgrammar understands it: JSON, and nothing else."""

import json
from typing import Any

import pytest
import xgrammar

from server.requests.json_schemas import (
    structural_tag_without_control_characters,
    without_control_characters,
)

CONTROL = [chr(code) for code in range(32)]
TEXT = {"type": "string"}
SHORT = TEXT | {"minLength": 1, "maxLength": 3}
OBJECT = {"type": "object"}
# Schemas, with a text that they allow up to a place in a string.
SCHEMAS: dict[str, tuple[Any, str]] = {
    "any string": (TEXT, '"a'),
    "a shortest length": (TEXT | {"minLength": 1}, '"a'),
    "a longest length": (TEXT | {"maxLength": 3}, '"a'),
    "a longest length beyond counting": (TEXT | {"maxLength": 10**12}, '"a'),
    "both lengths": (SHORT, '"a'),
    "a string or null": ({"type": ["string", "null"], "maxLength": 3}, '"a'),
    "an alternative": ({"anyOf": [SHORT, {"type": "null"}]}, '"a'),
    "an item": ({"type": "array", "items": SHORT}, '["a'),
    "the first item": ({"type": "array", "prefixItems": [SHORT]}, '["a'),
    "a property": (OBJECT | {"properties": {"minLength": SHORT}}, '{"minLength": "a'),
    "any property": (OBJECT | {"additionalProperties": SHORT}, '{"b": "a'),
    "names of properties": (OBJECT | {"propertyNames": {"maxLength": 3}}, '{"a'),
    "a definition": ({"$ref": "#/$defs/short", "$defs": {"short": SHORT}}, '"a'),
    "a pattern": (TEXT | {"pattern": "^a.*$"}, '"a'),
    "anything": (OBJECT, '{"a": "a'),
}


@pytest.fixture(scope="module")
def compiler() -> xgrammar.GrammarCompiler:
    """Of a tokenizer whose tokens are single bytes."""
    vocabulary = [bytes([byte]) for byte in range(256)]
    return xgrammar.GrammarCompiler(
        xgrammar.TokenizerInfo([*vocabulary, b"</s>"], stop_token_ids=[256])
    )


def allows(compiler: xgrammar.GrammarCompiler, schema: Any, beginning: str) -> bool:
    compiled = compiler.compile_json_schema(json.dumps(schema))
    return xgrammar.GrammarMatcher(compiled).accept_string(beginning)


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_string_holds_control_characters(compiler: xgrammar.GrammarCompiler, name: str) -> None:
    schema, beginning = SCHEMAS[name]
    safe = without_control_characters(schema)
    for character in ("b", "é", "\x7f", "\u2028", "🙂"):
        assert allows(compiler, safe, beginning + character + '"')
    for character in CONTROL:
        assert not allows(compiler, safe, beginning + character)


def test_lengths_are_kept(compiler: xgrammar.GrammarCompiler) -> None:
    safe = without_control_characters(SHORT)
    for text, is_allowed in (("", False), ("a", True), ("éé", True), ("🙂🙂🙂", True)):
        assert allows(compiler, safe, f'"{text}"') == is_allowed
    assert not allows(compiler, safe, '"abcd')


def test_xgrammar_itself_allows_them(compiler: xgrammar.GrammarCompiler) -> None:
    """Where it does not any more, the module can go."""
    assert allows(compiler, SHORT, '"a\t"')


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"enum": [SHORT], "type": "object"},
        {"const": SHORT},
        {"type": "object", "default": SHORT, "examples": [SHORT], "properties": {}},
        TEXT | {"pattern": "^a$", "maxLength": 3},
        {"type": "integer", "minLength": 3},
    ],
)
def test_what_is_no_schema_of_such_strings_stays_as_it_is(schema: Any) -> None:
    assert without_control_characters(schema) == schema


def test_schemas_in_structural_tags() -> None:
    safe = without_control_characters(SHORT)
    old = {"structures": [{"begin": "<a>", "schema": SHORT, "end": "</a>"}], "triggers": ["<a>"]}
    assert json.loads(structural_tag_without_control_characters(json.dumps(old))) == {
        "structures": [{"begin": "<a>", "schema": safe, "end": "</a>"}],
        "triggers": ["<a>"],
    }

    def tag(schema: Any, **fields: Any) -> dict[str, Any]:
        content = {"type": "json_schema", "json_schema": schema, **fields}
        return {
            "type": "structural_tag",
            "format": {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"},
        }

    for fields, expected in (
        ({}, safe),
        ({"style": "qwen_xml"}, SHORT),
        ({"excludes": ["b"]}, SHORT),
    ):
        changed = structural_tag_without_control_characters(json.dumps(tag(SHORT, **fields)))
        assert json.loads(changed) == tag(expected, **fields)
