"""What pydantic finds wrong with a request, in one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import BadRequest
from server.vllm_api import clean_loc_for_param

# How many problems are listed: a field that may have several types has one with each.
_MOST_PROBLEMS = 4
# The longest value that is shown, in characters.
_LONGEST_VALUE = 40


def invalid(errors: Sequence[Any]) -> BadRequest:
    """The refusal for errors as pydantic or FastAPI lists them."""
    listed = [error for error in errors if isinstance(error, Mapping)]
    if not listed:
        return BadRequest("; ".join(str(error) for error in errors))
    first = listed[0]
    if first["type"] == "json_invalid":
        return BadRequest(
            f"the body cannot be read as JSON: {first['ctx']['error']} (character "
            f"{first['loc'][-1]})"
        )
    problems = list(dict.fromkeys(_problem(error) for error in listed))
    more = "; …" if len(problems) > _MOST_PROBLEMS else ""
    return BadRequest("; ".join(problems[:_MOST_PROBLEMS]) + more, _field(first) or None)


def _problem(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).replace("Input should", "must", 1)
    value = error.get("input")
    shown = repr(value) if isinstance(value, str | int | float) else ""
    is_ = f" is {shown}," if shown and len(shown) <= _LONGEST_VALUE else ":"
    return f"{_field(error) or 'the body'}{is_} {message[:1].lower()}{message[1:]}"


def _field(error: Mapping[str, Any]) -> str:
    """Which field an error is about, as clients know it: without the names of our types."""
    parts = clean_loc_for_param(tuple(error["loc"])).split(".")
    named = [part for part in parts if not part[:1].isupper()]
    return ".".join(named[1:] if named[:1] == ["body"] else named)
