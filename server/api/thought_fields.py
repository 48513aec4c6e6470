"""Our request fields: how they are read, checked and described, for completions and chats alike."""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from quietstar_infer.params import ThoughtLimits, ThoughtParams
from server.admission import Ticket
from server.engine import OpenAIBaseModel, SamplingParams
from server.errors import BadRequest
from server.thoughts import PromptThoughts, RequestThoughts

# Fields of ours that say how to think; return_thoughts says what to answer.
THOUGHT_FIELDS = ("thought_budget", "thought_temperature", "thinking_token_budget")
OUR_FIELDS = (*THOUGHT_FIELDS, "return_thoughts")
# An unknown field that starts like this is meant for us.
_OUR_PREFIXES = ("thought", "think", "quiet")
# How alike (0 to 1) an unknown name must be to one of ours to be taken for a slip of the pen.
_LIKENESS = 0.75

# The values reach `ThoughtParams` as they came: pydantic would turn "5", 5.0 and true into numbers
# silently, and its messages do not say what a server allows.
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
    """Mixed into a request of vLLM's: our fields, which may also stand in `vllm_xargs` or in the
    URL's query.

    Raises `BadRequest` while it is parsed for what can be seen in the request alone; what depends
    on the server is checked by `server.checks`.
    """

    # Which field holds the text to go on with.
    text_field: ClassVar[str]

    thought_budget: _WholeNumber = Field(
        None,
        description="Thought tokens sampled before each visible token; 0 = do not think. By "
        "default and at most what the server says in /v1/models. START and END are not counted.",
    )
    thought_temperature: _Number = Field(
        None,
        description="Temperature of the thoughts; 0 = greedy. By default what the server says in "
        "/v1/models.",
    )
    thinking_token_budget: _WholeNumber = Field(
        None,
        description="Thought tokens for the whole of each answer; once spent, it goes on without "
        "thinking. Default: no limit.",
    )
    return_thoughts: _Flag = Field(
        None,
        description="Give with each choice what was thought before each of its tokens. Only on a "
        "server started with --allow-return-thoughts.",
    )

    _thoughts: RequestThoughts = PrivateAttr()
    _ticket: Ticket = PrivateAttr()
    _given: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="wrap")
    @classmethod
    def _read_our_fields(cls, data: Any, parse: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return parse(data)
        _refuse_what_json_is_not(data)
        _refuse_misspelt(data, set(cls.model_fields), "")
        cls.check_text(data.get(cls.text_field), data)
        request = parse(_without_xargs(data))
        request._given = frozenset(name for name, value in data.items() if value is not None)
        return request

    @classmethod
    def check_text(cls, text: Any, data: dict[str, Any]) -> None:
        """Refuse, as `BadRequest`, a text in which pydantic would find many faults or none."""
        raise NotImplementedError

    def thought_params(self, limits: ThoughtLimits) -> ThoughtParams:
        """How this request thinks; raises `ThoughtParamsError`, which says what is allowed."""
        return ThoughtParams.from_mapping(
            {name: getattr(self, name) for name in THOUGHT_FIELDS}, limits
        )

    def read_query(self, query: Mapping[str, str]) -> None:
        """Take our fields from the query of the URL, too: some clients let their users choose the
        address of a request, but no fields of it. Raises `BadRequest`.
        """
        _refuse_misspelt(query, set(type(self).model_fields), "query.")
        for name in OUR_FIELDS:
            if name in query:
                value = _json_value(query[name])
                _refuse_another(name, getattr(self, name), value, "in the URL")
                setattr(self, name, value)

    @property
    def thoughts(self) -> RequestThoughts:
        """The request's thoughts while it is being served, see `serve_with`."""
        return self._thoughts

    @property
    def ticket(self) -> Ticket:
        """The request's place among others while it is being served, see `serve_with`."""
        return self._ticket

    def serve_with(self, thoughts: RequestThoughts, ticket: Ticket) -> None:
        """Say how the request thinks, before vLLM's serving layer asks for its sampling
        parameters, and what admits it."""
        self._thoughts = thoughts
        self._ticket = ticket


def thinking(params: SamplingParams, prompt: PromptThoughts) -> SamplingParams:
    """Sampling parameters that tell the engine how to think about a prompt."""
    # In vLLM the same name belongs to models that think aloud, in their visible text.
    params.thinking_token_budget = None
    params.extra_args = {**(params.extra_args or {}), **prompt.params.to_mapping()}
    return params


def _without_xargs(data: dict[str, Any]) -> dict[str, Any]:
    """The request with our fields moved from `vllm_xargs` to the top level."""
    xargs = data.get("vllm_xargs")
    if not isinstance(xargs, dict):
        return data
    _refuse_misspelt(xargs, set(), "vllm_xargs.")
    moved = {name: xargs[name] for name in OUR_FIELDS if name in xargs}
    for name, value in moved.items():
        _refuse_another(name, data.get(name), value, "in vllm_xargs")
    rest = {name: value for name, value in xargs.items() if name not in moved}
    return {**data, **moved, "vllm_xargs": rest or None}


def _refuse_another(name: str, given: Any, value: Any, where: str) -> None:
    if given is not None and (type(given) is not type(value) or given != value):
        raise BadRequest(f"{name} is {given!r}, but {value!r} {where}: give it once", name)


def _json_value(text: str) -> Any:
    """A value in a URL as it would stand in a body; what is not JSON is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse_misspelt(fields: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a field that is not there but looks like one of ours: it would be ignored without a
    word."""
    for name in fields:
        if name in known or name in OUR_FIELDS:
            continue
        alike = difflib.get_close_matches(name.lower(), OUR_FIELDS, n=1, cutoff=_LIKENESS)
        if alike or name.lower().startswith(_OUR_PREFIXES):
            hint = f": did you mean {alike[0]}?" if alike else "."
            raise BadRequest(
                f"unknown field {where}{name}{hint} The fields about thoughts are "
                f"{', '.join(OUR_FIELDS)}",
                f"{where}{name}",
            )


def _refuse_what_json_is_not(data: dict[str, Any]) -> None:
    """Refuse NaN, infinities and halves of surrogate pairs, which Python reads without a word."""
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
