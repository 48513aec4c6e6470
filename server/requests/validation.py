"""What a server refuses of a request that is well formed in itself.

Each check raises `BadRequest`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quietstar_infer.config import END_TOKEN, START_TOKEN
from quietstar_infer.params import ThoughtParams
from server.errors import BadRequest
from server.requests.schemas import ThinkingCompletionRequest, ThinkingRequest
from server.vllm_api import SamplingParams

# Fields of vLLM's, and one of OpenAI's, that have no effect here, and why. vLLM would ignore them.
_WITHOUT_EFFECT = {
    "best_of": "ask for n answers, and choose",
    "length_penalty": "it is a part of beam search, which is not supported",
    "kv_transfer_params": "this server transfers no KV caches",
    "ec_transfer_params": "this server transfers no encoder caches",
    "routed_experts_prompt_start": "the model has no experts",
    "return_token_offsets": "only vLLM's own render endpoints know them",
    "watermarking": "this server has no watermark",
    "mm_payload": "the model takes text only",
    "return_mm_kwargs": "the model takes text only",
}

_LONGEST_ID = 256
# In all.
_LONGEST_WORDS = 1 << 15


@dataclass(frozen=True)
class ServedModel:
    """What the checks need to know of the model and its engine.

    `context_length` is in positions, thoughts included; `meta_token_ids` are START's and END's;
    `has_priorities` = requests may have priorities.
    """

    context_length: int
    vocab_size: int
    meta_token_ids: tuple[int, int]
    has_priorities: bool


def check_request_id(request_id: str | None, field: str) -> None:
    """Refuse a long id, of the request itself or of its header: it stands in every chunk."""
    if request_id is not None and len(request_id) > _LONGEST_ID:
        raise BadRequest(
            f"{field} has {len(request_id)} characters, at most {_LONGEST_ID} are allowed", field
        )


def check_options(
    request: ThinkingRequest,
    params: ThoughtParams,
    model: ServedModel,
    allow_return: bool,
) -> None:
    """Refuse fields that conflict with each other, with thinking or with this server."""
    check_request_id(request.request_id, "request_id")
    _check_words(request)
    _check_return_thoughts(request, allow_return)
    if isinstance(request, ThinkingCompletionRequest) and request.prompt_embeds is not None:
        raise BadRequest(
            "prompt_embeds is not supported: thinking needs a prompt of tokens", "prompt_embeds"
        )
    if request.use_beam_search:
        raise BadRequest("use_beam_search is not supported, must be false", "use_beam_search")
    _check_effect(request)
    if request.priority and not model.has_priorities:
        raise BadRequest(
            f"priority is {request.priority}, but requests are served in the order of their "
            "arrival: leave it out, or start the server with --scheduling-policy priority",
            "priority",
        )
    if params.budget > 0:
        _check_scoring(request, params)
    if params.first_thought:
        _check_first_thought(request, params, model, allow_return)
    _check_no_meta_tokens(request, model)


def cut_prompt(request: ThinkingRequest, params: ThoughtParams, model: ServedModel) -> None:
    """Set `truncate_prompt_tokens` -1, as much as fits, to a number: vLLM knows nothing of the
    positions that are kept free for thoughts."""
    if request.truncate_prompt_tokens == -1:
        # One is left for the answer.
        request.truncate_prompt_tokens = max(1, model.context_length - params.reserve - 1)


def check_prompt(
    token_ids: Sequence[int], request: ThinkingRequest, params: ThoughtParams, model: ServedModel
) -> int:
    """Refuse a tokenized prompt that cannot be served; returns how many tokens may follow it."""
    field = request.text_field
    if not token_ids:
        raise BadRequest("a prompt is empty, must be at least one token", field)
    _check_token_ids(token_ids, "the prompt", field, model)
    # As in vLLM, the completion is as long as fits.
    limit = model.context_length - params.reserve
    if len(token_ids) + 1 > limit:
        raise BadRequest(
            f"the prompt has {len(token_ids)} tokens and the completion may have 1, but "
            f"together they may have {limit}: the context of {model.context_length} less "
            f"{params.reserve} for thoughts of {params.longest_thought}",
            field,
        )
    room = limit - len(token_ids)
    if params.longest_thought > 0 and request.min_tokens > room:
        raise BadRequest(
            f"min_tokens is {request.min_tokens}, but only {room} tokens fit after the prompt",
            "min_tokens",
        )
    return room


def check_sampling(sampling_params: SamplingParams, params: ThoughtParams) -> None:
    """Refuse several answers that would be equal, `sampling_params` being complete."""
    is_greedy = sampling_params.temperature == 0
    has_sampled = not params.first_thought or sampling_params.max_tokens != 1
    samples_thoughts = params.budget > 0 and params.temperature > 0 and has_sampled
    if sampling_params.n > 1 and is_greedy and not samples_thoughts:
        raise BadRequest(
            f"n is {sampling_params.n}, must be 1 at temperature 0, unless thoughts are sampled: "
            "the answers would be equal",
            "n",
        )


def _check_words(request: ThinkingRequest) -> None:
    """Refuse long lists of words: bad ones are tokenized while others wait, and stop strings are
    looked for with every token."""
    for field, words in (("bad_words", request.bad_words), ("stop", request.stop)):
        length = len(words) if isinstance(words, str) else sum(map(len, words or ()))
        if length > _LONGEST_WORDS:
            raise BadRequest(
                f"{field} has {length} characters in all, at most {_LONGEST_WORDS} are allowed",
                field,
            )


def _check_return_thoughts(request: ThinkingRequest, allow_return: bool) -> None:
    if type(request.return_thoughts) not in (bool, type(None)):
        raise BadRequest(
            f"return_thoughts is {request.return_thoughts!r}, must be true or false",
            "return_thoughts",
        )
    if request.return_thoughts and not allow_return:
        raise BadRequest(
            "return_thoughts is true, but this server does not show thoughts: "
            "it was started without --allow-return-thoughts",
            "return_thoughts",
        )


def _check_effect(request: ThinkingRequest) -> None:
    """Refuse fields that would be ignored silently, unless their value is the default."""
    defaults = {name: field.default for name, field in type(request).model_fields.items()}
    defaults |= {"best_of": request.n, "watermarking": False}
    given = dict(request)
    for name, reason in _WITHOUT_EFFECT.items():
        if given.get(name) not in (None, defaults[name]):
            raise BadRequest(f"{name} is not supported: {reason}", name)


def _check_scoring(request: ThinkingRequest, params: ThoughtParams) -> None:
    """Refuse a budget for the whole request: all positions of a scored prompt think at once."""
    if request.scores_prompt and params.token_budget is not None:
        raise BadRequest(
            "thinking_token_budget cannot be combined with log-probabilities of the prompt: every "
            "position is thought about",
            "thinking_token_budget",
        )


def _check_first_thought(
    request: ThinkingRequest, params: ThoughtParams, model: ServedModel, allow_return: bool
) -> None:
    if not allow_return:
        # Whoever may try thoughts finds the one that gives the same answer as a hidden one.
        raise BadRequest(
            "first_thought is given, but this server does not show thoughts, which it could be "
            "used to find out: it was started without --allow-return-thoughts",
            "first_thought",
        )
    if request.scores_prompt:
        raise BadRequest(
            "first_thought cannot be combined with log-probabilities of the prompt: it is about "
            "the first token after it",
            "first_thought",
        )
    _check_token_ids(params.first_thought, "first_thought", "first_thought", model)


def _check_token_ids(token_ids: Sequence[int], where: str, field: str, model: ServedModel) -> None:
    start, end = model.meta_token_ids
    for token_id in token_ids:
        if not 0 <= token_id < model.vocab_size:
            raise BadRequest(
                f"token id {token_id} is out of range, must be from 0 to {model.vocab_size - 1}",
                field,
            )
        if token_id in model.meta_token_ids:
            raise BadRequest(
                f"{where} contains {START_TOKEN} or {END_TOKEN} (token ids {start} and {end}), "
                "which only the model itself may use",
                field,
            )


def _check_no_meta_tokens(request: ThinkingRequest, model: ServedModel) -> None:
    """Refuse fields that name START or END, which are never sampled as text."""
    for field, token_ids in _token_ids_by_field(request):
        named = sorted(set(token_ids) & set(model.meta_token_ids))
        if named:
            raise BadRequest(
                f"{field} names token id {named[0]} ({START_TOKEN} or {END_TOKEN}), which is never "
                "part of the text",
                field,
            )
    for word in request.bad_words:
        if START_TOKEN in word or END_TOKEN in word:
            raise BadRequest(
                f"bad_words names {START_TOKEN} or {END_TOKEN}, which is never part of the text",
                "bad_words",
            )


def _token_ids_by_field(
    request: ThinkingRequest,
) -> Iterable[tuple[str, Iterable[int]]]:
    yield "allowed_token_ids", request.allowed_token_ids or ()
    yield "stop_token_ids", request.stop_token_ids or ()
    yield "logprob_token_ids", request.logprob_token_ids or ()
    # vLLM refuses keys that are not numbers.
    yield "logit_bias", [int(key) for key in request.logit_bias or () if key.strip().isdecimal()]
