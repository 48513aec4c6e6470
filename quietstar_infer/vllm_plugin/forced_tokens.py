"""Requests whose visible tokens are given, not sampled: how a text is scored."""

from collections.abc import Sequence

import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


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
