"""Words that must not be said: as tokens, at the beginning of a text and within it."""

from server.vllm_api import SamplingParams, TokenizerLike


def block_words(params: SamplingParams, tokenizer: TokenizerLike) -> None:
    """Replace a request's `bad_words` by their tokens, without and with a space before them.

    vLLM leaves the form with a space out where it has another number of tokens, so that a word of
    one token after a space and of several without is not blocked within a text. Can go when it does
    not. Raises what vLLM does for words that cannot be blocked.
    """
    if not params.bad_words:
        return
    params.update_from_tokenizer(tokenizer)
    forms = list(params.bad_words_token_ids or ())
    for word in params.bad_words:
        spaced = tokenizer.encode(text=f" {word.lstrip()}", add_special_tokens=False)
        if spaced and spaced not in forms:
            forms.append(spaced)
    # vLLM would make its own forms again of words that are left.
    params.bad_words, params._bad_words_token_ids = [], forms
