"""Texts continued in this process, with thoughts where they pay; several continuations at once.

Each visible token is one step for all continuations of a text: its thoughts are decoded over the
kept keys and values of the text, which then grows by the token. Where no continuation is to think
about its token none is decoded; where only some are, the thoughts of the others do not count. What
is sampled depends on a continuation's seed and on the position alone.

Shapes: B continuations, T tokens fed, H hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quietstar_infer.gate import ThoughtGate
from training.evaluations.backends.base import Continuation, Sampling
from training.evaluations.backends.expected_gain import expected_gains
from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell
from training.kernels.thought_attention import GrowingTextAttention
from training.thoughts.decode import decode_thoughts, seeded_tokens
from training.thoughts.model import QuietThinker

VISIBLE_TOKEN_STEP = 2**20
"""The step of a visible token's noise: no thought is so long."""


@torch.inference_mode()
def continuations(
    thinker: QuietThinker,
    gate: ThoughtGate | None,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    cell: Cell,
    thought_temperature: float,
    sampling: Sampling,
) -> list[Continuation]:
    """Continuations of a text, one for each seed, as `Backend.continue_text` specifies."""
    text = GrowingTextAttention()
    fed_BT = torch.tensor([list(ids)] * len(sampling.seeds), device=thinker.lm_head_VH.device)
    growing = [_GrowingContinuation(tokenizer, cell, sampling.stop) for _ in sampling.seeds]
    first = 0
    for _ in range(sampling.max_tokens):
        base_BH = thinker.text_states(text, fed_BT, first)[:, -1]
        first += fed_BT.shape[1]
        run = range(first - 1, first)  # the position of the last token
        unfinished_B = torch.tensor([not one.is_finished for one in growing], device=fed_BT.device)
        thinks_B = unfinished_B & _pays(thinker, gate, base_BH, cell)
        hidden_BH = base_BH
        if thinks_B.any():
            choose = seeded_tokens(thinker, sampling.seeds, run, thought_temperature)
            (thought,) = decode_thoughts(thinker, text, len(base_BH), run, (cell.budget,), choose)
            mixed_BH = thinker.mix(base_BH, thought.hidden_BCH[:, 0]).hidden
            hidden_BH = torch.where(thinks_B[:, None], mixed_BH, base_BH)
        choose = seeded_tokens(thinker, sampling.seeds, run, sampling.temperature)
        fed_BT = choose(hidden_BH, VISIBLE_TOKEN_STEP)[:, None]
        for one, token, thinks in zip(
            growing, fed_BT[:, 0].tolist(), thinks_B.tolist(), strict=True
        ):
            one.add(token, thinks)
        if all(one.is_finished for one in growing):
            break
    return [one.continuation() for one in growing]


def _pays(thinker: QuietThinker, gate: ThoughtGate | None, base_BH: Tensor, cell: Cell) -> Tensor:
    """Whether each continuation's next token is to be thought about, (B,)."""
    if cell.is_gated:
        return expected_gains(thinker, gate, base_BH, cell.budget) > cell.threshold
    return torch.full((len(base_BH),), cell.budget > 0, device=base_BH.device)


class _GrowingContinuation:
    """A continuation so far."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cell: Cell, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._cell = cell
        self._stop = stop
        self._sampled: list[int] = []
        self._finished: str | None = None
        self._cost = Cost(0)

    @property
    def is_finished(self) -> bool:
        """Whether a token has ended it."""
        return self._finished is not None

    def add(self, token: int, is_thought_about: bool) -> None:
        """Add a token, unless it is finished."""
        if self.is_finished:
            return
        self._cost += Cost(1, is_thought_about, is_thought_about * self._cell.budget)
        if token == self._tokenizer.eos_token_id:
            self._finished = self._text()
            return
        self._sampled.append(token)
        text = self._text()
        ends = [text.index(word) for word in self._stop if word in text]
        self._finished = text[: min(ends)] if ends else None

    def continuation(self) -> Continuation:
        """The text, whole or as far as it got, and what it cost."""
        return Continuation(self._text() if self._finished is None else self._finished, self._cost)

    def _text(self) -> str:
        text = self._tokenizer.decode(self._sampled, skip_special_tokens=True)
        assert isinstance(text, str), "one text, no batch"
        return text
