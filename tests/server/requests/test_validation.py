"""What a server refuses that depends on how it was started."""

import pytest

from quietstar_infer.params import ThoughtParams
from server.errors import BadRequest
from server.requests.schemas import ThinkingCompletionRequest
from server.requests.validation import ServedModel, check_options

MODEL = ServedModel(
    context_length=100, vocab_size=66, meta_token_ids=(64, 65), has_priorities=False
)


def test_a_server_that_hides_its_thoughts_takes_none() -> None:
    """The same answer after a thought that was tried as after a hidden one would reveal it."""
    request = ThinkingCompletionRequest.model_validate({"prompt": "t5", "first_thought": [5]})
    params = ThoughtParams(3, first_thought=(5,))
    check_options(request, params, MODEL, allow_return=True)
    with pytest.raises(BadRequest, match="without --allow-return-thoughts") as refused:
        check_options(request, params, MODEL, allow_return=False)
    assert refused.value.parameter == "first_thought"
