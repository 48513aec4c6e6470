"""The model in this process: thoughts at all scored positions of several passages are decoded at
once.

Shapes: B passages, T tokens, C positions of a run, H hidden, V vocabulary, b thought tokens; N
scored tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.errors import UsageError
from training.evaluations.backends.base import PassageScores, Sampling, TokenScore
from training.evaluations.backends.continuations import continuations
from training.evaluations.tasks.passages import Passage
from training.kernels.thought_attention import TextAttention
from training.thoughts.batch import check_window
from training.thoughts.decode import (
    DecodedThought,
    ThoughtSettings,
    decode_thoughts,
    seeded_tokens,
)
from training.thoughts.model import QuietThinker

TOKENS_AT_A_TIME = {"cpu": 2**12, "cuda": 2**15}
"""Tokens of padded texts, and of thoughts, whose keys and values are kept at a time."""


class ScoredTokens(NamedTuple):
    """Tokens that are predicted from the positions of a run: rows and columns in it, (N,) each, and
    the tokens, (N,)."""

    row_N: Tensor
    column_N: Tensor
    token_N: Tensor


class LocalBackend:
    """A thinker, on its device and in its precision; a `Backend`."""

    def __init__(
        self, thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, thoughts: ThoughtSettings
    ) -> None:
        self.thinker = thinker.eval()
        self.tokenizer = tokenizer
        self.thoughts = thoughts
        self.device = thinker.lm_head_VH.device

    def describe(self) -> dict[str, object]:
        """Device and precision."""
        return {"device": self.device.type, "dtype": str(self.thinker.lm_head_VH.dtype)[6:]}

    @torch.inference_mode()
    def score(
        self, passages: Sequence[Passage], *, with_thoughts: bool = False
    ) -> list[PassageScores]:
        """As `Backend.score`."""
        found: list[dict[int, list[TokenScore]]] = [defaultdict(list) for _ in passages]
        for numbers in self._batches(passages):
            batch = [passages[number] for number in numbers]
            for budget, row, score in self._score_batch(batch, with_thoughts):
                found[numbers[row]][budget].append(score)
        return [dict(scores) for scores in found]

    def continue_text(self, ids: Sequence[int], budget: int, sampling: Sampling) -> list[str]:
        """As `Backend.continue_text`."""
        return continuations(self.thinker, self.tokenizer, ids, budget, self.thoughts, sampling)

    def _batches(self, passages: Sequence[Passage]) -> Iterator[list[int]]:
        """Numbers of passages that are padded together, of similar length and few tokens in all."""
        most = TOKENS_AT_A_TIME[self.device.type]
        batch: list[int] = []
        for number in sorted(range(len(passages)), key=lambda n: len(passages[n].ids)):
            if batch and (len(batch) + 1) * len(passages[number].ids) > most:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _score_batch(
        self, batch: Sequence[Passage], with_thoughts: bool
    ) -> Iterator[tuple[int, int, TokenScore]]:
        """Budget, passage and score of every scored token; those of a passage in order."""
        ids_BT = self._pad(batch)
        text = TextAttention(needs_grad=False)
        base_BTH = self.thinker.text_states(text, ids_BT)
        for run in self._runs(batch):
            base_BCH = base_BTH[:, run.start : run.stop]
            tokens = self._scored_tokens(batch, ids_BT, run)
            for thought in self._thoughts(text, base_BCH, run):
                yield from self._score_tokens(batch, base_BCH, thought, tokens, with_thoughts)

    def _thoughts(
        self, text: TextAttention, base_BCH: Tensor, run: range
    ) -> Iterator[DecodedThought]:
        """A thought at every position of a run, for each budget; that of budget 0 is the base."""
        sequences, settings = len(base_BCH), self.thoughts
        if 0 in settings.budgets:
            no_ids = torch.empty((*base_BCH.shape[:2], 0), dtype=torch.int64, device=self.device)
            yield DecodedThought(0, base_BCH, no_ids)
        seeds = [settings.seed] * sequences
        choose = seeded_tokens(self.thinker, seeds, run, settings.temperature)
        yield from decode_thoughts(self.thinker, text, sequences, run, settings.budgets, choose)

    def _pad(self, batch: Sequence[Passage]) -> Tensor:
        """Token ids, (B, T), padded on the right, where no scored token attends to the padding."""
        longest = max(len(passage.ids) for passage in batch)
        config = self.thinker.base_model.config.get_text_config().to_dict()
        check_window(longest, 0, config.get("sliding_window"))
        room = config.get("max_position_embeddings")
        needed = longest + (self.thoughts.longest + 1 if self.thoughts.longest else 0)
        if room is not None and needed > room:
            raise UsageError(
                f"a text of {longest} tokens with thoughts of {self.thoughts.longest} needs "
                f"{needed} positions, the model has {room}; use --document-tokens"
            )
        rows = [passage.ids + [0] * (longest - len(passage.ids)) for passage in batch]
        return torch.tensor(rows, device=self.device)

    def _runs(self, batch: Sequence[Passage]) -> Iterator[range]:
        """Runs of positions whose thoughts are decoded at once; together all scored positions."""
        first = min(passage.start for passage in batch) - 1
        last = max(len(passage.ids) for passage in batch) - 1
        tokens = len(batch) * (self.thoughts.longest + 2)
        size = max(1, TOKENS_AT_A_TIME[self.device.type] // tokens)
        for start in range(first, last, size):
            yield range(start, min(start + size, last))

    def _scored_tokens(self, batch: Sequence[Passage], ids_BT: Tensor, run: range) -> ScoredTokens:
        position_1C = torch.arange(run.start, run.stop, device=self.device)[None]
        first_B1, last_B1 = (
            torch.tensor(numbers, device=self.device)[:, None]
            for numbers in ([p.start - 1 for p in batch], [len(p.ids) - 1 for p in batch])
        )
        row_N, column_N = ((first_B1 <= position_1C) & (position_1C < last_B1)).nonzero().T
        return ScoredTokens(row_N, column_N, ids_BT[row_N, column_N + run.start + 1])

    def _score_tokens(
        self,
        batch: Sequence[Passage],
        base_BCH: Tensor,
        thought: DecodedThought,
        tokens: ScoredTokens,
        with_thoughts: bool,
    ) -> Iterator[tuple[int, int, TokenScore]]:
        """Mix, and look the tokens up in the predictions."""
        at = (tokens.row_N, tokens.column_N)
        mixed_NH = base_BCH[at]
        weights: list[float | None] = [None] * len(mixed_NH)
        if thought.budget:
            mixed_NH, weight_N = self.thinker.mix(mixed_NH, thought.hidden_BCH[at])
            weights = weight_N.tolist()
        thoughts = thought.ids_BCb[at].tolist() if with_thoughts else [None] * len(mixed_NH)
        passages = [batch[row] for row in tokens.row_N.tolist()]
        scores = self._look_up(mixed_NH, tokens.token_N, passages)
        for row, score, weight, ids in zip(
            tokens.row_N.tolist(), scores, weights, thoughts, strict=True
        ):
            thinks = ids if thought.budget else None
            yield thought.budget, row, score._replace(mixing_weight=weight, thought_ids=thinks)

    def _look_up(
        self, hidden_NH: Tensor, token_N: Tensor, passages: Sequence[Passage]
    ) -> Iterator[TokenScore]:
        for rows, logits_NV in self.thinker.logits(hidden_NH):
            tokens = token_N[rows]
            likeliest = (logits_NV.argmax(dim=-1) == tokens).tolist()
            logits_N = logits_NV.gather(1, tokens[:, None])[:, 0]
            logprobs = (logits_N - logits_NV.logsumexp(dim=-1)).tolist()
            for n, passage in enumerate(passages[rows]):
                among = _among_allowed(logits_NV[n], int(tokens[n]), passage.allowed)
                yield TokenScore(logprobs[n], likeliest[n], among)


def _among_allowed(logits_V: Tensor, token: int, allowed: tuple[int, ...]) -> float | None:
    """A token's log-probability among the allowed ones; None if it is not one of them."""
    if token not in allowed:
        return None
    chosen = logits_V[torch.tensor(allowed, device=logits_V.device)]
    return float(logits_V[token] - chosen.logsumexp(dim=0))
