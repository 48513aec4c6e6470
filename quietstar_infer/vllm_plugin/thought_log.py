"""What requests thought, kept for those that asked until it is fetched.

Shapes: N rows of the batch, W wanted thoughts, B the largest budget, V vocabulary.
"""

from collections import defaultdict
from functools import cached_property
from typing import Any, NamedTuple

import torch

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep


class Owner(NamedTuple):
    """Who asked for a thought, and which of its thoughts it is."""

    record_key: str
    request_id: str
    step: ThoughtStep


class Recording(NamedTuple):
    """The wanted thoughts that end in one pass, before it is known what is said after them."""

    owners: list[Owner]
    # Their rows of the batch, (W,).
    row_W: torch.Tensor
    token_WB: torch.Tensor
    weight_W1: torch.Tensor
    # What may be said, by the plain prediction (0) and by the mixed one (1).
    logprob_W2V: torch.Tensor

    def finish(self, said_N: torch.Tensor) -> "FinishedThoughts":
        """With the visible tokens that the batch's rows have said."""
        said_W21 = said_N[self.row_W].long()[:, None, None].expand(-1, 2, 1)
        logprob_W2 = self.logprob_W2V.gather(-1, said_W21).squeeze(-1)
        return FinishedThoughts(self.owners, self.token_WB, self.weight_W1, logprob_W2)


class FinishedThoughts:
    """The wanted thoughts that ended in one pass, and how likely that made what was said.

    The tensors stay on the device until somebody fetches one of the thoughts: recording must not
    make the engine wait.
    """

    def __init__(
        self,
        owners: list[Owner],
        token_WB: torch.Tensor,
        weight_W1: torch.Tensor,
        logprob_W2: torch.Tensor,
    ) -> None:
        self.owners = owners
        self._token_WB = token_WB
        self._weight_W1 = weight_W1
        self._logprob_W2 = logprob_W2

    @cached_property
    def _on_host(self) -> tuple[list[list[int]], list[float], list[list[float]]]:
        weights = self._weight_W1.flatten().tolist()
        return self._token_WB.tolist(), weights, self._logprob_W2.tolist()

    def describe(self, row: int) -> dict[str, Any]:
        """One thought in plain types, ready for the wire."""
        tokens, weights, logprobs = self._on_host
        step = self.owners[row].step
        base_logprob, mixed_logprob = logprobs[row]
        return {
            "index": step.index,
            "token_ids": tokens[row][: step.budget],
            "mixing_weight": weights[row],
            "base_logprob": base_logprob,
            "mixed_logprob": mixed_logprob,
        }


class _Entry(NamedTuple):
    thoughts: FinishedThoughts
    row: int

    @property
    def num_tokens(self) -> int:
        return self.thoughts.owners[self.row].step.budget


class ThoughtRecords:
    """Finished thoughts by record key and request, at most `max_tokens` thought tokens in all.

    What comes when it is full is not kept: a client that never fetches must not cost others their
    memory.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: dict[str, dict[str, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
        self.num_tokens = 0

    def add(self, thoughts: FinishedThoughts) -> None:
        """Keep what just ended, as far as there is room."""
        for row, owner in enumerate(thoughts.owners):
            entry = _Entry(thoughts, row)
            if self.num_tokens + entry.num_tokens <= self._max_tokens:
                self._entries[owner.record_key][owner.request_id].append(entry)
                self.num_tokens += entry.num_tokens

    def take(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return what is kept under a key: thoughts in order, by the engine's request
        id.

        Each has `index`, the number of the visible token it came before, `token_ids`,
        `mixing_weight`, and the log-probability (nats) of that visible token without the thought,
        `base_logprob`, and with it, `mixed_logprob`.
        """
        return {
            request_id: [entry.thoughts.describe(entry.row) for entry in entries]
            for request_id, entries in self._remove(key).items()
        }

    def drop(self, key: str) -> None:
        """Remove what is kept under a key."""
        self._remove(key)

    def _remove(self, key: str) -> dict[str, list[_Entry]]:
        removed = self._entries.pop(key, {})
        self.num_tokens -= sum(
            entry.num_tokens for entries in removed.values() for entry in entries
        )
        return removed
