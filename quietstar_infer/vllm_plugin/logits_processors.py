"""What is done to the logits of visible tokens, after all that vLLM does but penalties: they are
checked, and those of requests that score a text are replaced by the tokens that are given.

Shapes: N rows of the batch, V vocabulary, F forced rows.
"""

from collections.abc import Sequence

import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

# Why no token could be sampled: the model's numbers were not finite, or all tokens were excluded,
# because a grammar and other constraints contradict each other.
NOT_FINITE = "not finite"
NONE_LEFT = "none left"


def failure_marks(meta_token_ids: tuple[int, int]) -> dict[str, int]:
    """By reason: the token that says so where another one should have been sampled."""
    return dict(zip((NOT_FINITE, NONE_LEFT), meta_token_ids, strict=True))


class SampleCheck(LogitsProcessor):
    """Finds the rows of a batch from which no token can be sampled, and marks them by a token that
    is never sampled otherwise, START or END: a mark goes wherever vLLM sends sampled tokens,
    without a synchronisation, and can be fed like any token until the scheduler has seen it.
    """

    def __init__(self, meta_token_ids: tuple[int, int]) -> None:
        self._marks = failure_marks(meta_token_ids)
        # The largest logit of each row of the batch that is being sampled.
        self._best_N: torch.Tensor | None = None

    def is_argmax_invariant(self) -> bool:
        """False: otherwise vLLM would skip the processor for greedy requests."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing is kept from one engine step to the next."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Look at (N, V); one reduction, in which NaN wins."""
        self._best_N = logits.amax(dim=-1)
        return logits

    def mark(self, sampled_N: torch.Tensor) -> torch.Tensor:
        """The tokens sampled from these logits, (N,), with the marks."""
        best_N, self._best_N = self._best_N, None
        assert best_N is not None, "vLLM applies its processors to all logits that it samples from"
        mark_N = torch.where(best_N == -torch.inf, self._marks[NONE_LEFT], self._marks[NOT_FINITE])
        return torch.where(best_N.isfinite(), sampled_N, mark_N.to(sampled_N.dtype))


class ForcedTokens(LogitsProcessor):
    """Masks all tokens but one in the forced rows of a batch, before vLLM samples.

    vLLM takes log-probabilities before it processes logits, so those that it reports for a forced
    row are the model's own.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._row_token_2F: torch.Tensor | None = None

    def force(self, row_F: Sequence[int], token_F: Sequence[int]) -> None:
        """Set the tokens that the next sampling yields in these batch rows; the others sample
        freely.
        """
        self._row_token_2F = (
            async_tensor_h2d([row_F, token_F], device=self._device, dtype=torch.int64)
            if row_F
            else None
        )

    def is_argmax_invariant(self) -> bool:
        """False: otherwise vLLM would skip the processor for greedy requests."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing is kept from one engine step to the next."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, V) for a batch of N rows, changed in place."""
        if self._row_token_2F is not None:
            row_F, token_F = self._row_token_2F.unbind()
            logits.index_fill_(0, row_F, float("-inf"))
            logits[row_F, token_F] = 0.0
            self._row_token_2F = None
        return logits
