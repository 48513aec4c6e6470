"""What requests thought, kept for those that asked until it is fetched."""

from collections import defaultdict
from functools import cached_property
from typing import Any, NamedTuple

import torch

from quietstar_infer.vllm_plugin.step import ThoughtStep


class FinishedThoughts:
    """The thoughts that ended in one pass: tokens (R, B), mixing weights (R, 1).

    They stay on the device until somebody fetches one of them: recording must not make the engine
    wait.
    """

    def __init__(self, token_RB: torch.Tensor, weight_R1: torch.Tensor) -> None:
        self._token_RB = token_RB
        self._weight_R1 = weight_R1

    @cached_property
    def _on_host(self) -> tuple[list[list[int]], list[float]]:
        return self._token_RB.tolist(), self._weight_R1.flatten().tolist()

    def describe(self, row: int, step: ThoughtStep) -> dict[str, Any]:
        """One thought in plain types, ready for the wire."""
        tokens, weights = self._on_host
        return {
            "index": step.index,
            "token_ids": tokens[row][: step.budget],
            "mixing_weight": weights[row],
        }


class _Entry(NamedTuple):
    thoughts: FinishedThoughts
    row: int
    step: ThoughtStep


class ThoughtRecords:
    """Finished thoughts by record key and request, at most `max_tokens` thought tokens in all.

    What comes when it is full is not kept: a client that never fetches must not cost others their
    memory.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: dict[str, dict[str, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
        self.num_tokens = 0

    def add(
        self, key: str, request_id: str, thoughts: FinishedThoughts, row: int, step: ThoughtStep
    ) -> None:
        """Keep row `row` of what just ended, if there is room."""
        if self.num_tokens + step.budget <= self._max_tokens:
            self._entries[key][request_id].append(_Entry(thoughts, row, step))
            self.num_tokens += step.budget

    def take(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return what is kept under a key: thoughts in order, by the engine's request
        id.

        Each has `index`, the number of the visible token it came before, `token_ids` and
        `mixing_weight`.
        """
        taken = self._remove(key)
        return {
            request_id: [entry.thoughts.describe(entry.row, entry.step) for entry in entries]
            for request_id, entries in taken.items()
        }

    def drop(self, key: str) -> None:
        """Remove what is kept under a key."""
        self._remove(key)

    def _remove(self, key: str) -> dict[str, list[_Entry]]:
        removed = self._entries.pop(key, {})
        self.num_tokens -= sum(
            entry.step.budget for entries in removed.values() for entry in entries
        )
        return removed
