"""What a server refuses of a request that is well formed in itself: each check raises
`BadRequest`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quietstar_infer.config import END_TOKEN, START_TOKEN
from quietstar_infer.params import ThoughtParams
from server.errors import BadRequest
from server.protocol import ThinkingCompletionRequest


@dataclass(frozen=True)
class ServedModel:
    """What the checks know of the model: its context in positions, its vocabulary, START's and
    END's ids."""

    context_length: int
    vocab_size: int
    meta_token_ids: tuple[int, int]


def check_options(
    request: ThinkingCompletionRequest,
    params: ThoughtParams,
    model: ServedModel,
    allow_return: bool,
) -> None:
    """Refuse fields that do not go with each other, with thinking or with this server."""
    _check_return_thoughts(request, allow_return)
    if request.prompt_embeds is not None:
        raise BadRequest(
            "prompt_embeds is not supported: thinking needs a prompt of tokens", "prompt_embeds"
        )
    if request.use_beam_search:
        raise BadRequest("use_beam_search is not supported, must be false", "use_beam_search")
    if params.budget > 0:
        _check_scoring(request, params)
    _check_no_meta_tokens(request, model)


def check_prompt(
    token_ids: Sequence[int], wanted_tokens: int, params: ThoughtParams, model: ServedModel
) -> int:
    """Refuse a tokenized prompt that cannot be thought about; returns how many tokens may follow
    it.

    `wanted_tokens`: how many the request asks for at most.
    """
    if not token_ids:
        raise BadRequest("a prompt is empty, must be at least one token", "prompt")
    _check_token_ids(token_ids, model)
    # Without thoughts vLLM's own rule holds: what does not fit is cut off.
    needed = wanted_tokens if params.budget > 0 else 1
    limit = model.context_length - params.reserve
    if len(token_ids) + needed > limit:
        raise BadRequest(
            f"the prompt has {len(token_ids)} tokens and the completion may have {needed}, but "
            f"together they may have {limit}: the context of {model.context_length} less "
            f"{params.reserve} for thoughts of {params.budget}",
            "prompt",
        )
    return limit - len(token_ids)


def _check_return_thoughts(request: ThinkingCompletionRequest, allow_return: bool) -> None:
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


def _check_scoring(request: ThinkingCompletionRequest, params: ThoughtParams) -> None:
    """A prompt is scored by thinking at all its positions at once, none of them before another."""
    if request.scores_prompt and params.token_budget is not None:
        raise BadRequest(
            "thinking_token_budget does not go with log-probabilities of the prompt: every "
            "position is thought about",
            "thinking_token_budget",
        )


def _check_token_ids(token_ids: Sequence[int], model: ServedModel) -> None:
    start, end = model.meta_token_ids
    for token_id in token_ids:
        if not 0 <= token_id < model.vocab_size:
            raise BadRequest(
                f"token id {token_id} is out of range, must be from 0 to {model.vocab_size - 1}",
                "prompt",
            )
        if token_id in model.meta_token_ids:
            raise BadRequest(
                f"the prompt contains {START_TOKEN} or {END_TOKEN} (token ids {start} and {end}), "
                "which only the model itself may use",
                "prompt",
            )


def _check_no_meta_tokens(request: ThinkingCompletionRequest, model: ServedModel) -> None:
    """The meta-tokens are never sampled as text: to ask for them is a mistake, whatever was hoped
    for."""
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
    request: ThinkingCompletionRequest,
) -> Iterable[tuple[str, Iterable[int]]]:
    yield "allowed_token_ids", request.allowed_token_ids or ()
    yield "stop_token_ids", request.stop_token_ids or ()
    yield "logprob_token_ids", request.logprob_token_ids or ()
    # Keys that are no numbers are vLLM's to refuse.
    yield "logit_bias", [int(key) for key in request.logit_bias or () if key.strip().isdecimal()]
