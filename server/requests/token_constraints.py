"""Which tokens a request's fields let it sample: those that leave none are refused."""

from quietstar_infer.config import END_TOKEN, START_TOKEN
from server.engine.grammar_process import TokenConstraints
from server.errors import BadRequest
from server.requests.validation import ServedModel
from server.vllm_api import SamplingParams


def token_constraints(params: SamplingParams, model: ServedModel) -> TokenConstraints:
    """What the first token of an answer may be, grammar apart.

    `params`: as vLLM has completed them with stop tokens and the tokens of bad words. Later tokens
    may be more, because of `min_tokens` and of bad words of several tokens. Raises `BadRequest`
    where it may be none.
    """
    allowed = None if params.allowed_token_ids is None else frozenset(params.allowed_token_ids)
    bad = {word[0] for word in params.bad_words_token_ids or () if len(word) == 1}
    stops = params.all_stop_token_ids if params.min_tokens else set()
    constraints = TokenConstraints(allowed, frozenset({*model.meta_token_ids, *bad, *stops}))
    candidates = range(model.vocab_size) if allowed is None else allowed
    if constraints.blocked.issuperset(candidates):
        raise BadRequest(
            "no token is left to sample: allowed_token_ids, bad_words and, with min_tokens, the "
            f"stop tokens exclude all (beside {START_TOKEN} and {END_TOKEN})",
            "allowed_token_ids" if allowed is not None else "bad_words",
        )
    return constraints
