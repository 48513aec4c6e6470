"""The tokens of bad words, by the demonstration's tokenizer."""

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.tokenizers import TokenizerLike, get_tokenizer

from server.requests.bad_words import block_words
from server.vllm_api import SamplingParams
from tests.support.servers import DEMO


@pytest.fixture(scope="module")
def tokenizer() -> TokenizerLike:
    return get_tokenizer(str(DEMO))


@pytest.mark.parametrize("word", ["doubles", " doubles", "Ann", "dial", "7"])
def test_a_word_is_blocked_at_the_beginning_and_within_a_text(
    tokenizer: TokenizerLike, word: str
) -> None:
    params = SamplingParams(bad_words=[word])
    block_words(params, tokenizer)
    blocked = params.bad_words_token_ids
    assert blocked is not None
    for text in (word.strip(), f" {word.strip()}"):
        assert tokenizer.encode(text, add_special_tokens=False) in blocked
    # vLLM's own preparation, which follows, leaves it as it is.
    params.update_from_tokenizer(tokenizer)
    assert params.bad_words_token_ids == blocked


def test_without_bad_words_nothing_is_blocked(tokenizer: TokenizerLike) -> None:
    params = SamplingParams()
    block_words(params, tokenizer)
    assert params.bad_words_token_ids is None


def test_a_word_without_tokens_is_refused(tokenizer: TokenizerLike) -> None:
    with pytest.raises(VLLMValidationError, match="at least one token"):
        block_words(SamplingParams(bad_words=[" "]), tokenizer)
