"""JSON schemas of requests, written so that xgrammar allows nothing but JSON."""

import json
from collections.abc import Mapping
from typing import Any

# A character of a JSON string that needs no escape.
_CHARACTER = r"[^\"\\\u0000-\u001f]"
# xgrammar counts repetitions in 32 bits. No answer is as long.
_MOST = (1 << 31) - 1
_LENGTHS = ("minLength", "maxLength")
# Keywords whose values are a schema (or, for some, a list of schemas), and maps of schemas. What is
# elsewhere may look like one: an example, a constant.
_SCHEMAS = (
    *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
    *("anyOf", "allOf", "oneOf", "not", "if", "then", "else"),
)
_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")


def without_control_characters(schema: Any, *, is_name: bool = False) -> Any:
    """A copy of a schema with lengths of strings as patterns: the same strings but for those with
    control characters, which are no JSON.

    xgrammar 0.2.8 allows them where a string has a `minLength` or a `maxLength`, and nowhere else.
    Can go when it does not. `is_name`: of the names of properties, which are strings.
    """
    if isinstance(schema, list):
        return [without_control_characters(it, is_name=is_name) for it in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _inner(key, schema[key]) for key in (*_SCHEMAS, *_MAPS) if key in schema}
    copied = {**schema, **inner}
    if (is_name or _allows_strings(schema)) and _has_lengths_only(schema):
        copied["pattern"] = _pattern(*(copied.pop(key, None) for key in _LENGTHS))
    return copied


def _inner(keyword: str, value: Any) -> Any:
    if keyword in _MAPS:
        if not isinstance(value, dict):
            return value
        return {name: without_control_characters(it) for name, it in value.items()}
    return without_control_characters(value, is_name=keyword == "propertyNames")


def _allows_strings(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _has_lengths_only(schema: Mapping[str, Any]) -> bool:
    """Lengths beside a pattern or a format are refused."""
    return any(key in schema for key in _LENGTHS) and not {"pattern", "format"} & schema.keys()


def _pattern(least: int | None, most: int | None) -> str:
    upper = "" if most is None else str(min(most, _MOST))
    return f"^{_CHARACTER}{{{min(least or 0, _MOST)},{upper}}}$"


def structural_tag_without_control_characters(tag: str) -> str:
    """The same of the schemas in a structural tag (text in which parts are JSON)."""
    return json.dumps(_tag(json.loads(tag)))


def _tag(part: Any) -> Any:
    if isinstance(part, list):
        return [_tag(it) for it in part]
    if not isinstance(part, dict):
        return part
    if "structures" in part:
        return {**part, "structures": [_with_schema(it, "schema") for it in part["structures"]]}
    if part.get("type") == "json_schema":
        # Other styles are XML; with exclusions xgrammar ignores lengths.
        is_plain = part.get("style", "json") == "json" and not part.get("excludes")
        return _with_schema(part, "json_schema") if is_plain else part
    return {key: _tag(value) for key, value in part.items()}


def _with_schema(part: dict[str, Any], key: str) -> dict[str, Any]:
    return {**part, key: without_control_characters(part.get(key))}
