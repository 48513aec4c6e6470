"""What pydantic finds wrong with a request, in one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.engine import clean_loc_for_param
from server.errors import BadRequest

# A field that may be of several types has a problem with each of them.
_MOST_PROBLEMS = 4
_MOST_SHOWN = 40


def invalid(errors: Sequence[Any]) -> BadRequest:
    """The refusal for errors as pydantic, or FastAPI, lists them."""
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
    is_ = f" is {shown}," if shown and len(shown) <= _MOST_SHOWN else ":"
    return f"{_field(error) or 'the body'}{is_} {message[:1].lower()}{message[1:]}"


def _field(error: Mapping[str, Any]) -> str:
    """Where the error is, as a client would say it: without the names of our types."""
    parts = clean_loc_for_param(tuple(error["loc"])).split(".")
    named = [part for part in parts if not part[:1].isupper()]
    return ".".join(named[1:] if named[:1] == ["body"] else named)
