"""Our request fields: how they are parsed, checked and described, for completions and chats alike.

What is checked here depends on the request alone; `validation.py` checks what depends on the
server.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import Field, ModelWrapValidatorHandler, WithJsonSchema, model_validator

from quietstar_infer.params import ThoughtLimits, ThoughtParams
from server.errors import BadRequest
from server.vllm_api import OpenAIBaseModel

# The fields that set how to think; return_thoughts is about the response.
THOUGHT_FIELDS = ("thought_budget", "thought_temperature", "thinking_token_budget")
OUR_FIELDS = (*THOUGHT_FIELDS, "return_thoughts")
# An unknown field that starts like this is taken for a misspelt one of ours.
_OUR_PREFIXES = ("thought", "think", "quiet")
# How similar (0 to 1) an unknown name must be to one of ours to be taken for a misspelling of it.
_SIMILARITY = 0.75
# How many unknown fields are looked at: each takes a tenth of a millisecond.
_MOST_UNKNOWN = 100

# The values reach `ThoughtParams` unconverted: pydantic would silently turn "5", 5.0 and true into
# numbers, and its messages do not say what the server allows.
_WholeNumber: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
]
_Number: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]})
]
_Flag: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
]


class ThoughtFields(OpenAIBaseModel):
    """Mixed into a request of vLLM's: our fields, which may also be given in `vllm_xargs` or in the
    URL's query.

    Parsing raises `BadRequest` for what is wrong with them, whatever the server.
    """

    # The name of the field with the prompt.
    text_field: ClassVar[str]

    thought_budget: _WholeNumber = Field(
        None,
        description="Thought tokens sampled before each visible token; 0 = do not think. Default "
        "and maximum are in /v1/models. START and END are not counted.",
    )
    thought_temperature: _Number = Field(
        None,
        description="Temperature of the thoughts; 0 = greedy. The default is in /v1/models.",
    )
    thinking_token_budget: _WholeNumber = Field(
        None,
        description="Thought tokens for the whole of each answer; once spent, it continues without "
        "thinking. Default: no limit.",
    )
    return_thoughts: _Flag = Field(
        None,
        description="Return with each choice the thought before each of its tokens. Only on a "
        "server started with --allow-return-thoughts.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _parse_our_fields(cls, data: Any, parse: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return parse(data)
        _refuse_invalid_json(data)
        _refuse_misspelt(data, set(cls.model_fields), "")
        cls.check_text(data.get(cls.text_field), data)
        request = parse(_without_xargs(data))
        # vLLM sets the default before pydantic looks, so that pydantic takes it for the client's.
        if data.get("max_tokens") is None:
            request.model_fields_set.discard("max_tokens")
        return request

    @classmethod
    def check_text(cls, text: Any, data: dict[str, Any]) -> None:
        """Raise `BadRequest` for texts that pydantic would accept, or report as many errors."""
        raise NotImplementedError

    def thought_params(self, limits: ThoughtLimits) -> ThoughtParams:
        """How this request thinks. Raises `ThoughtParamsError`, which says what is allowed."""
        return ThoughtParams.from_mapping(
            {name: getattr(self, name) for name in THOUGHT_FIELDS}, limits
        )

    def add_query(self, query: Mapping[str, str]) -> None:
        """Take our fields from the query of the URL, too: some clients let their users choose the
        URL of a request, but no fields. Raises `BadRequest`.
        """
        _refuse_misspelt(query, set(type(self).model_fields), "query.")
        for name in OUR_FIELDS:
            if name in query:
                value = _json_value(query[name])
                _refuse_conflict(name, getattr(self, name), value, "in the URL")
                setattr(self, name, value)


def _without_xargs(data: dict[str, Any]) -> dict[str, Any]:
    """The request with our fields moved from `vllm_xargs` to the top level."""
    xargs = data.get("vllm_xargs")
    if not isinstance(xargs, dict):
        return data
    _refuse_misspelt(xargs, set(), "vllm_xargs.")
    moved = {name: xargs[name] for name in OUR_FIELDS if name in xargs}
    for name, value in moved.items():
        _refuse_conflict(name, data.get(name), value, "in vllm_xargs")
    rest = {name: value for name, value in xargs.items() if name not in moved}
    return {**data, **moved, "vllm_xargs": rest or None}


def _refuse_conflict(name: str, given: Any, value: Any, where: str) -> None:
    if given is not None and (type(given) is not type(value) or given != value):
        raise BadRequest(f"{name} is {given!r}, but {value!r} {where}: give it once", name)


def _json_value(text: str) -> Any:
    """A value in a URL, parsed as in a body; what is not JSON is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse_misspelt(fields: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse unknown fields that look like one of ours: they would be ignored silently."""
    unknown = [name for name in fields if name not in known and name not in OUR_FIELDS]
    if len(unknown) > _MOST_UNKNOWN:
        raise BadRequest(
            f"{len(unknown)} fields{f' in {where[:-1]}' if where else ''} are unknown, at most "
            f"{_MOST_UNKNOWN} may be",
            where[:-1] or None,
        )
    for name in unknown:
        alike = difflib.get_close_matches(name.lower(), OUR_FIELDS, n=1, cutoff=_SIMILARITY)
        if alike or name.lower().startswith(_OUR_PREFIXES):
            hint = f": did you mean {alike[0]}?" if alike else "."
            raise BadRequest(
                f"unknown field {where}{name}{hint} The fields about thoughts are "
                f"{', '.join(OUR_FIELDS)}",
                f"{where}{name}",
            )


def _refuse_invalid_json(data: dict[str, Any]) -> None:
    """Refuse NaN, infinities and lone surrogates, which Python's JSON parser accepts."""
    for name, value in data.items():
        try:
            json.dumps([name, value], allow_nan=False, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadRequest(
                f"{name!a} has a text that is not Unicode: a lone surrogate (\\ud800 … \\udfff)",
                ascii(name)[1:-1],
            ) from None
        except ValueError:
            raise BadRequest(f"{name} has a number that is not finite", name) from None
