"""Our request fields as headers of HTTP: for proxies, which can add one to the requests of clients
that send no fields of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtLimits
from server.errors import BadRequest
from server.requests.thought_fields import THOUGHT_FIELDS, check_thought_fields, json_value

# By name, as it is usually written: the field that it sets.
THOUGHT_HEADERS: Mapping[str, str] = {
    "-".join(word.capitalize() for word in ("x", *field.split("_"))): field
    for field in THOUGHT_FIELDS
}
_FIELDS = {header.lower(): field for header, field in THOUGHT_HEADERS.items()}
# An unknown header that starts like this is taken for a misspelt one of ours.
_OUR_PREFIXES = ("x-thought", "x-think", "x-quiet")
OPENAPI_PARAMETERS = [
    {
        "name": header,
        "in": "header",
        "required": False,
        "schema": {"type": "integer" if "budget" in field else "number", "minimum": 0},
        "description": f"{field}, for requests that do not have it themselves.",
    }
    for header, field in THOUGHT_HEADERS.items()
]


def fields_in_headers(headers: Sequence[tuple[str, str]], limits: ThoughtLimits) -> dict[str, Any]:
    """The fields that the headers of a request set. Raises `BadRequest` for one of ours that is
    misspelt, contradicts another or is not allowed, whether it has an effect or not."""
    found: dict[str, Any] = {}
    for name, text in headers:
        field = _FIELDS.get(name.lower())
        if field is None:
            _refuse_misspelt_header(name)
            continue
        value = json_value(text)
        if field in found and found[field] != value:
            raise BadRequest(f"the header {name} has several values: give it once", name)
        try:
            check_thought_fields({field: value}, limits)
        except ThoughtParamsError as error:
            raise BadRequest(f"the header {name}: {error}", name) from error
        found[field] = value
    return found


def _refuse_misspelt_header(name: str) -> None:
    if name.lower().startswith(_OUR_PREFIXES):
        raise BadRequest(
            f"unknown header {name}: those about thoughts are {', '.join(THOUGHT_HEADERS)}", name
        )
