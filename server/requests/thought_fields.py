"""Our request fields: how they are parsed, checked and described, for completions and chats alike.

What is checked here depends on the request alone; `validation.py` checks what depends on the
server.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import Field, ModelWrapValidatorHandler, WithJsonSchema, model_validator

from quietstar_infer.config import EffortThresholds
from quietstar_infer.params import MAX_TEMPERATURE, ThoughtLimits, ThoughtParams
from server.errors import BadRequest
from server.requests.foreign_fields import instead_of, is_container
from server.vllm_api import OpenAIBaseModel, SamplingParams

# The fields that set how to think; first_thought is about one thought, return_thoughts about the
# response.
THOUGHT_FIELDS = (
    "thought_budget",
    "thought_temperature",
    "thought_threshold",
    "thinking_token_budget",
)
OUR_FIELDS = (*THOUGHT_FIELDS, "first_thought", "return_thoughts")
# An unknown field that starts like this is taken for a misspelt one of ours.
_OUR_PREFIXES = ("thought", "think", "quiet")
# How similar (0 to 1) an unknown name must be to one of ours to be taken for a misspelling of it.
_SIMILARITY = 0.75
# How many unknown fields are looked at: each takes a tenth of a millisecond.
_MOST_UNKNOWN = 100
# The longest text of a given thought, in characters: it is tokenized while others wait.
_LONGEST_THOUGHT = 1 << 14

# The values reach `ThoughtParams` unconverted: pydantic would silently turn "5", 5.0 and true into
# numbers, and its messages do not say what the server allows.
_WholeNumber: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
]
_Number: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]})
]
_TEMPERATURE = {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE}
_Temperature: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [_TEMPERATURE, {"type": "null"}]})
]
_TEXT_OR_TOKENS = [
    {"type": "string", "minLength": 1},
    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
]
_Thought: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [*_TEXT_OR_TOKENS, {"type": "null"}]})
]
_Flag: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
]


class ThoughtFields(OpenAIBaseModel):
    """Mixed into a request of vLLM's: our fields, which may also be given in `vllm_xargs` or in the
    URL's query.

    Parsing raises `BadRequest` for what is wrong with them, whatever the server.
    """

    if TYPE_CHECKING:
        n: Any  # of vLLM's requests, which this is mixed into
    # The name of the field with the prompt.
    text_field: ClassVar[str]

    thought_budget: _WholeNumber = Field(
        None,
        description="Thought tokens sampled before each visible token; 0 = do not think. Default "
        "and maximum are in /v1/models. START and END are not counted.",
    )
    thought_temperature: _Temperature = Field(
        None,
        description="Temperature of the thoughts; 0 = greedy. The default is in /v1/models.",
    )
    thought_threshold: _Number = Field(
        None,
        description="In nats: think before a token only where the thought is expected to save more "
        "than this; 0 = before every token. The default is in /v1/models.",
    )
    thinking_token_budget: _WholeNumber = Field(
        None,
        description="Thought tokens for the whole of each answer, spent where it thinks; after "
        "that, it continues without thinking. Default: no limit.",
    )
    first_thought: _Thought = Field(
        None,
        description="The thought before the first token of each answer, which is then not sampled: "
        "a text or token ids, at most as many tokens as the largest budget. It is thought whatever "
        "budget and threshold are, which are about the tokens after it, and counts as any other. "
        "Only on a server started with --allow-return-thoughts.",
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

    def thought_params(
        self,
        limits: ThoughtLimits,
        efforts: EffortThresholds,
        defaults: Mapping[str, Any] | None = None,
        first_thought: Sequence[int] | None = None,
    ) -> ThoughtParams:
        """How this request thinks. `defaults`: of its headers and of its model's name, which have
        an effect where it says nothing itself. `first_thought`: the given one, as tokens.

        Raises `ThoughtParamsError`, which says what is allowed.
        """
        given = {name: getattr(self, name) for name in THOUGHT_FIELDS}
        explicit = {name: value for name, value in given.items() if value is not None}
        fields = {**(defaults or {}), **self.effort_fields(efforts), **explicit}
        fields["first_thought"] = first_thought
        return ThoughtParams.from_mapping(fields, limits)

    def first_thought_ids(self, encode: Callable[[str], Sequence[int]]) -> Sequence[int] | None:
        """The given thought, if there is one, whose token ids are not checked yet. `encode`: the
        tokenizer's, without special tokens. Raises `BadRequest`.
        """
        thought = self.first_thought
        if thought is None or isinstance(thought, list):
            return thought
        if not isinstance(thought, str):
            raise BadRequest(
                "first_thought is neither a text nor a list of token ids, must be either",
                "first_thought",
            )
        if len(thought) > _LONGEST_THOUGHT:
            raise BadRequest(
                f"first_thought has {len(thought)} characters, at most {_LONGEST_THOUGHT} are "
                "allowed",
                "first_thought",
            )
        return encode(thought)

    def effort_fields(self, efforts: EffortThresholds) -> Mapping[str, Any]:
        """The thought fields that the request sets by an effort, rather than by themselves."""
        return {}

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        """vLLM's; it refuses several answers at temperature 0, which are equal without thoughts
        only: `validation.check_sampling` does it in its place.
        """
        number = self.n
        self.n = None if number is None else min(number, 1)
        try:
            params: SamplingParams = super().to_sampling_params(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.n = number
        params.n = number or 1
        return params

    def add_query(self, query: Sequence[tuple[str, str]]) -> None:
        """Take our fields from the query of the URL, too: some clients let their users choose the
        URL of a request, but no fields. Raises `BadRequest`.
        """
        known = set(type(self).model_fields)
        _refuse_misspelt(dict(query), known, "query.")
        for name, text in query:
            if name in OUR_FIELDS:
                value = json_value(text)
                _refuse_conflict(name, getattr(self, name), value, "in the URL")
                setattr(self, name, value)
            elif name in known:
                raise BadRequest(
                    f"{name} cannot be given in the URL, only {', '.join(OUR_FIELDS)} can", name
                )


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


def check_thought_fields(fields: Mapping[str, Any], limits: ThoughtLimits) -> None:
    """Raise `ThoughtParamsError` for fields that no request may have on a server with such
    limits."""
    ThoughtParams.from_mapping(fields, limits)


def json_value(text: str) -> Any:
    """A value that is given as text, in a URL, a header or an option, parsed as in a body; what is
    not JSON is a string."""
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
        _refuse_foreign(name, fields[name], where)
        alike = difflib.get_close_matches(name.lower(), OUR_FIELDS, n=1, cutoff=_SIMILARITY)
        if alike or name.lower().startswith(_OUR_PREFIXES):
            hint = f": did you mean {alike[0]}?" if alike else "."
            raise BadRequest(
                f"unknown field {where}{name}{hint} The fields about thoughts are "
                f"{', '.join(OUR_FIELDS)}",
                f"{where}{name}",
            )


def _refuse_foreign(name: str, value: Any, where: str) -> None:
    """Refuse an unknown field that means one of ours, or has one of ours in it."""
    if is_container(name, value):
        raise BadRequest(
            f"unknown field {where}{name}: give the fields in it at the top level of the request",
            f"{where}{name}",
        )
    if instead := instead_of(name):
        raise BadRequest(f"unknown field {where}{name}: use {instead}", f"{where}{name}")
    inner = list(value)[:_MOST_UNKNOWN] if isinstance(value, dict) else []
    for field in inner:
        if field in OUR_FIELDS or instead_of(str(field)):
            right = instead_of(str(field)) or f"{field} at the top level of the request"
            raise BadRequest(
                f"unknown field {where}{name}, with {field} in it: use {right}", f"{where}{name}"
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
