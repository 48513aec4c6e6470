"""Thoughts about several texts at once, one token of every thought per pass, and what they lead to.

Thoughts of different lengths share their beginnings: while the longest is written, END is read
behind each length that is wanted, and forgotten again. The noise is the server's, a function of
seed, position and step: with the same seed the same is thought here and there, alone or in company.

Shapes: B texts, T of their positions, C consecutive ones that are thought about, H hidden, V
vocabulary, b thought tokens; N rows picked out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quietstar_infer.sampling import draw_thought_tokens, mask_meta_tokens
from training.kernels.attention import GrowingPaths, Text
from training.kernels.cross_entropy import compute_dtype, logit_chunks
from training.errors import UsageError
from training.thoughts.model import QuietThinker


@dataclass(frozen=True)
class Thoughts:
    """How to think. `budgets` are thought tokens before each token, 0 = none, from small to large;
    at `temperature` 0 thoughts are greedy; `seed` is a request's. Raises `UsageError`.
    """

    budgets: tuple[int, ...]
    temperature: float = 1.0
    seed: int = 1234

    def __post_init__(self) -> None:
        rise = tuple(sorted(set(self.budgets))) == self.budgets
        if not self.budgets or not rise or self.budgets[0] < 0:
            raise UsageError(f"budgets are {self.budgets}, must be 0 or more, and rise")

    @property
    def longest(self) -> int:
        """The largest budget."""
        return self.budgets[-1]


class Thought(NamedTuple):
    """At every position of a run, thoughts of `budget` tokens: the trunk's output at END, (B, C,
    H), and the thoughts, (B, C, b)."""

    budget: int
    hidden_BCH: Tensor
    ids_BCb: Tensor


def think(
    thinker: QuietThinker, text: Text, batch: int, run: range, thoughts: Thoughts
) -> Iterator[Thought]:
    """Think about the positions `run` of texts that have been read; nothing for budget 0."""
    device = thinker.lm_head_VH.device
    position_1C = torch.arange(run.start, run.stop, device=device)[None]
    paths = GrowingPaths(text, len(run), 1, capacity=thoughts.longest + 2, first=run.start)
    embedding_BCH = thinker.start_H.expand(batch, len(run), -1)
    end_BCH = thinker.end_H.expand(batch, len(run), -1)
    ids_BCb = torch.empty((batch, len(run), 0), dtype=torch.int64, device=device)
    for length in range(thoughts.longest + 1):
        hidden_BCH = thinker.read(embedding_BCH, position_1C + 1 + length, thoughts=paths)
        paths.advance()
        if length and length in thoughts.budgets:
            # Without `advance` the next token takes its place.
            after_BCH = thinker.read(end_BCH, position_1C + 2 + length, thoughts=paths)
            yield Thought(length, after_BCH, ids_BCb)
        if length < thoughts.longest:
            next_N = choose(thinker, hidden_BCH.flatten(0, 1), run, length, thoughts)
            ids_BCb = torch.cat([ids_BCb, next_N.view(batch, -1, 1)], dim=2)
            embedding_BCH = thinker.embed(ids_BCb[..., -1])


def choose(
    thinker: QuietThinker, hidden_NH: Tensor, run: Sequence[int], step: int, thoughts: Thoughts
) -> Tensor:
    """The next token of every thought, (N,), rows text by text; `run` are a text's positions."""
    weight_VH = thinker.lm_head_VH
    chosen_N = torch.empty(len(hidden_NH), dtype=torch.int64, device=hidden_NH.device)
    position_N = torch.tensor(run).repeat(len(hidden_NH) // len(run))
    seed_N = torch.full_like(position_N, thoughts.seed)
    step_N = torch.full_like(position_N, step)
    for rows, logits_NV in logit_chunks(hidden_NH, weight_VH, compute_dtype(weight_VH)):
        mask_meta_tokens(logits_NV, thinker.meta_token_ids)
        chosen_N[rows] = draw(logits_NV, seed_N[rows], position_N[rows], step_N[rows], thoughts)
    return chosen_N


def draw(
    logits_NV: Tensor, seed_N: Tensor, position_N: Tensor, step_N: Tensor, thoughts: Thoughts
) -> Tensor:
    """One token per row, (N,): greedy, or with the noise of seed, position and step."""
    if thoughts.temperature == 0:
        return logits_NV.argmax(dim=-1)
    where = (each_N.to(logits_NV.device) for each_N in (seed_N, position_N, step_N))
    temperature_N = logits_NV.new_full((len(logits_NV),), thoughts.temperature)
    return draw_thought_tokens(logits_NV, temperature_N, *where)
