"""Finished thoughts of the requests that asked to see them, kept until they are fetched.

Shapes: N rows of the batch, W logged thoughts of a pass, B the largest budget, V vocabulary.
"""

from collections import defaultdict
from functools import cached_property
from typing import Any, NamedTuple

import torch

from quietstar_infer.vllm_plugin.schedule_plan import ThoughtStep


class ThoughtOwner(NamedTuple):
    """Who asked for a thought, and which of its thoughts it is."""

    record_key: str
    request_id: str
    step: ThoughtStep


class UnsampledThoughts(NamedTuple):
    """Thoughts to be logged that end in a pass, before its visible tokens are sampled; first come
    those that were not thought, `num_skipped`, with a weight of 0.
    """

    owners: list[ThoughtOwner]
    num_skipped: int
    # Their rows of the batch, (W,).
    row_W: torch.Tensor
    token_WB: torch.Tensor
    weight_W1: torch.Tensor
    gain_W: torch.Tensor
    # Of the whole vocabulary, by the base prediction (0) and by the mixed one (1).
    logprob_W2V: torch.Tensor

    def finish(self, sampled_N: torch.Tensor) -> "FinishedThoughts":
        """With the visible tokens sampled for the batch's rows, (N,)."""
        sampled_W21 = sampled_N[self.row_W].long()[:, None, None].expand(-1, 2, 1)
        logprob_W2 = self.logprob_W2V.gather(-1, sampled_W21).squeeze(-1)
        return FinishedThoughts(
            self.owners, self.num_skipped, self.token_WB, self.weight_W1, self.gain_W, logprob_W2
        )


class FinishedThoughts:
    """Logged thoughts that ended in one pass, and how likely the visible token after each was.

    The tensors stay on the device until one of the thoughts is fetched, so that logging does not
    make the engine wait for the device.
    """

    def __init__(
        self,
        owners: list[ThoughtOwner],
        num_skipped: int,
        token_WB: torch.Tensor,
        weight_W1: torch.Tensor,
        gain_W: torch.Tensor,
        logprob_W2: torch.Tensor,
    ) -> None:
        self.owners = owners
        self._num_skipped = num_skipped
        self._token_WB = token_WB
        self._weight_W1 = weight_W1
        self._gain_W = gain_W
        self._logprob_W2 = logprob_W2

    @property
    def gain_errors(self) -> torch.Tensor:
        """What each that was thought saved at the visible token, less what it was expected to, in
        nats, on the device.
        """
        measured_W = self._logprob_W2[:, 1] - self._logprob_W2[:, 0]
        return (measured_W - self._gain_W)[self._num_skipped :]

    @cached_property
    def _on_host(self) -> tuple[list[list[int]], list[float], list[float], list[list[float]]]:
        weights, gains = self._weight_W1.flatten().tolist(), self._gain_W.tolist()
        return self._token_WB.tolist(), weights, gains, self._logprob_W2.tolist()

    def describe(self, row: int) -> dict[str, Any]:
        """One thought in plain types, as it is sent to the server."""
        tokens, weights, gains, logprobs = self._on_host
        step, is_skipped = self.owners[row].step, row < self._num_skipped
        base_logprob, mixed_logprob = logprobs[row]
        return {
            "index": step.index,
            "expected_gain": gains[row],
            "token_ids": [] if is_skipped else tokens[row][: step.budget],
            "mixing_weight": None if is_skipped else weights[row],
            "base_logprob": base_logprob,
            "mixed_logprob": mixed_logprob,
        }


class _Entry(NamedTuple):
    thoughts: FinishedThoughts
    row: int

    @property
    def num_tokens(self) -> int:
        step = self.thoughts.owners[self.row].step
        # An entry without a thought takes room, too.
        return 1 if step.is_gate else step.budget


class ThoughtLog:
    """Finished thoughts by record key and request, at most `max_tokens` thought tokens in all.

    Thoughts that end while it is full are not kept: a client that never fetches its own must not
    use up the memory.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: dict[str, dict[str, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
        self.num_tokens = 0

    def add(self, thoughts: FinishedThoughts) -> None:
        """Keep those for which there is room."""
        for row, owner in enumerate(thoughts.owners):
            entry = _Entry(thoughts, row)
            if self.num_tokens + entry.num_tokens <= self._max_tokens:
                self._entries[owner.record_key][owner.request_id].append(entry)
                self.num_tokens += entry.num_tokens

    def take(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return what is kept under a record key: thoughts in order, by the engine's
        request id.

        Each has `index`, the number of the visible token it came before, `expected_gain` (nats),
        `token_ids`, `mixing_weight` (none and None where it was not thought), and the
        log-probability (nats) of that visible token without the thought,
        `base_logprob`, and with it, `mixed_logprob`.
        """
        return {
            request_id: [entry.thoughts.describe(entry.row) for entry in entries]
            for request_id, entries in self._remove(key).items()
        }

    def drop(self, key: str) -> None:
        """Remove what is kept under a record key."""
        self._remove(key)

    def _remove(self, key: str) -> dict[str, list[_Entry]]:
        removed = self._entries.pop(key, {})
        self.num_tokens -= sum(
            entry.num_tokens for entries in removed.values() for entry in entries
        )
        return removed
