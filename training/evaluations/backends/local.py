"""The model in this process: thoughts at all scored positions of several passages are decoded at
once. A thought threshold only decides where they count: one decoding is enough for all of them.

Shapes: B passages, T tokens, C positions of a run, H hidden, V vocabulary, b thought tokens; N
scored tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quietstar_infer.gate import ThoughtGate
from training.errors import UsageError
from training.evaluations.backends.base import (
    Continuation,
    PassageScores,
    Sampling,
    ScoredPassage,
    TokenScore,
)
from training.evaluations.backends.continuations import continuations
from training.evaluations.backends.expected_gain import expected_gains
from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell
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


class PredictedToken(NamedTuple):
    """A token of a passage of the batch in a cell: its score, and whether it was thought about."""

    row: int
    cell: Cell
    score: TokenScore
    is_thought_about: bool


class LocalBackend:
    """A thinker, on its device and in its precision, and its gate, if it has one; a `Backend`."""

    def __init__(
        self,
        thinker: QuietThinker,
        tokenizer: PreTrainedTokenizerBase,
        thoughts: ThoughtSettings,
        gate: ThoughtGate | None = None,
    ) -> None:
        self.thinker = thinker.eval()
        self.gate = gate
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
        found: list[dict[Cell, list[PredictedToken]]] = [defaultdict(list) for _ in passages]
        for numbers in self._batches(passages):
            batch = [passages[number] for number in numbers]
            for token in self._score_batch(batch, with_thoughts):
                found[numbers[token.row]][token.cell].append(token)
        return [
            {cell: _scored_passage(cell, tokens) for cell, tokens in by_cell.items()}
            for by_cell in found
        ]

    def continue_text(
        self, ids: Sequence[int], cell: Cell, sampling: Sampling
    ) -> list[Continuation]:
        """As `Backend.continue_text`."""
        temperature = self.thoughts.temperature
        return continuations(
            self.thinker, self.gate, self.tokenizer, ids, cell, temperature, sampling
        )

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
    ) -> Iterator[PredictedToken]:
        """Every scored token in every cell; those of a passage and cell in order."""
        ids_BT = self._pad(batch)
        text = TextAttention(needs_grad=False)
        base_BTH = self.thinker.text_states(text, ids_BT)
        for run in self._runs(batch):
            base_BCH = base_BTH[:, run.start : run.stop]
            tokens = self._scored_tokens(batch, ids_BT, run)
            base_NH = base_BCH[tokens.row_N, tokens.column_N]
            plain = list(self._look_up(base_NH, tokens, batch))
            rows = tokens.row_N.tolist()
            if 0 in self.thoughts.budgets:
                for row, score in zip(rows, plain, strict=True):
                    yield PredictedToken(row, Cell(0), score, is_thought_about=False)
            for thought in self._thoughts(text, len(batch), run):
                mixed = self._mixed_scores(batch, base_NH, thought, tokens, with_thoughts)
                gains = self._expected_gains(base_NH, thought.budget, wanted=with_thoughts)
                for each in zip(rows, plain, mixed, gains, strict=True):
                    yield from self._by_threshold(thought.budget, *each, with_thoughts)

    def _thoughts(
        self, text: TextAttention, sequences: int, run: range
    ) -> Iterator[DecodedThought]:
        """A thought at every position of a run, for each budget but 0."""
        settings = self.thoughts
        seeds = [settings.seed] * sequences
        choose = seeded_tokens(self.thinker, seeds, run, settings.temperature)
        yield from decode_thoughts(self.thinker, text, sequences, run, settings.budgets, choose)

    def _expected_gains(
        self, base_NH: Tensor, budget: int, *, wanted: bool
    ) -> Sequence[float | None]:
        """In nats, (N,); None where no threshold needs them and they are not `wanted`."""
        if not wanted and not any(self.thoughts.thresholds):
            return [None] * len(base_NH)
        gains: list[float] = expected_gains(self.thinker, self.gate, base_NH, budget).tolist()
        return gains

    def _by_threshold(
        self,
        budget: int,
        row: int,
        plain: TokenScore,
        mixed: TokenScore,
        gain: float | None,
        with_thoughts: bool,
    ) -> Iterator[PredictedToken]:
        """A token in every cell of a budget: the base prediction stands where the thought is not
        expected to save more than the threshold.
        """
        for threshold in self.thoughts.thresholds:
            thinks = threshold == 0 or (gain is not None and gain > threshold)
            score = mixed if thinks else plain
            if with_thoughts:
                ids = mixed.thought_ids if thinks else []
                score = score._replace(thought_ids=ids, expected_gain=gain)
            yield PredictedToken(row, Cell(budget, threshold), score, thinks)

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

    def _mixed_scores(
        self,
        batch: Sequence[Passage],
        base_NH: Tensor,
        thought: DecodedThought,
        tokens: ScoredTokens,
        with_thoughts: bool,
    ) -> Iterator[TokenScore]:
        """Mix, and look the tokens up in the predictions."""
        at = (tokens.row_N, tokens.column_N)
        mixed_NH, weight_N = self.thinker.mix(base_NH, thought.hidden_BCH[at])
        thoughts = thought.ids_BCb[at].tolist() if with_thoughts else [None] * len(mixed_NH)
        scores = self._look_up(mixed_NH, tokens, batch)
        for score, weight, ids in zip(scores, weight_N.tolist(), thoughts, strict=True):
            yield score._replace(mixing_weight=weight, thought_ids=ids)

    def _look_up(
        self, hidden_NH: Tensor, scored: ScoredTokens, batch: Sequence[Passage]
    ) -> Iterator[TokenScore]:
        """The scored tokens in predictions from these hidden states."""
        passages = [batch[row] for row in scored.row_N.tolist()]
        for rows, logits_NV in self.thinker.logits(hidden_NH):
            tokens = scored.token_N[rows]
            likeliest = (logits_NV.argmax(dim=-1) == tokens).tolist()
            logits_N = logits_NV.gather(1, tokens[:, None])[:, 0]
            logprobs = (logits_N - logits_NV.logsumexp(dim=-1)).tolist()
            for n, passage in enumerate(passages[rows]):
                among = _among_allowed(logits_NV[n], int(tokens[n]), passage.allowed)
                yield TokenScore(logprobs[n], likeliest[n], among)


def _scored_passage(cell: Cell, tokens: Sequence[PredictedToken]) -> ScoredPassage:
    thoughts = sum(token.is_thought_about for token in tokens)
    cost = Cost(len(tokens), thoughts, thoughts * cell.budget)
    return ScoredPassage([token.score for token in tokens], cost)


def _among_allowed(logits_V: Tensor, token: int, allowed: tuple[int, ...]) -> float | None:
    """A token's log-probability among the allowed ones; None if it is not one of them."""
    if token not in allowed:
        return None
    chosen = logits_V[torch.tensor(allowed, device=logits_V.device)]
    return float(logits_V[token] - chosen.logsumexp(dim=0))
