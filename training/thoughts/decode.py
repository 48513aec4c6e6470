"""Decodes thoughts: one token of every thought per pass, over the kept keys and values of a text.

`ThoughtDecoder` is the only thought decoder here. Training's rollout samples with it
(`training.thoughts.rollout`); evaluations and the demonstration use `decode_thoughts`, which also
feeds END. Thoughts of different budgets share their beginnings: while the longest is decoded, END
is fed behind each length that is wanted, and is not kept.

Shapes: B texts, T of their positions, C consecutive ones that are thought about, P thoughts per
position, H hidden, V vocabulary, b thought tokens; N = B·C·P rows, in this order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quietstar_infer.params import is_finite_from_zero
from quietstar_infer.sampling import draw_thought_tokens
from training.errors import UsageError
from training.kernels.thought_attention import GrowingPathAttention, TextAttention
from training.thoughts.model import QuietThinker

ChooseTokens = Callable[[Tensor, int], Tensor]
"""(hidden states (N, H) of the last token of every thought, step k) to the next token ids, (N,)."""


@dataclass(frozen=True)
class ThoughtSettings:
    """How to think. `budgets` are thought tokens before each token, 0 = none, in rising order; at
    `temperature` 0 thoughts are greedy; `seed` is a request's; `thresholds`, in nats, rising: only
    thoughts that are expected to save more count, at 0 all. Raises `UsageError`.
    """

    budgets: tuple[int, ...]
    temperature: float = 1.0
    seed: int = 1234
    thresholds: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not _rise(self.budgets) or self.budgets[0] < 0:
            raise UsageError(f"budgets are {self.budgets}, must be 0 or more, and rise")
        if not all(map(is_finite_from_zero, self.thresholds)) or not _rise(self.thresholds):
            raise UsageError(
                f"thresholds are {self.thresholds}, must be finite numbers from 0 up, and rise"
            )

    @property
    def longest(self) -> int:
        """The largest budget."""
        return self.budgets[-1]


def _rise(numbers: tuple[float, ...]) -> bool:
    return len(numbers) > 0 and tuple(sorted(set(numbers))) == numbers


class DecodedThought(NamedTuple):
    """Thoughts of `budget` tokens at every position: END's hidden states, (B, C, H), and the
    thought tokens, (B, C, b)."""

    budget: int
    hidden_BCH: Tensor
    ids_BCb: Tensor


class ThoughtDecoder:
    """The thoughts of the positions `run` of `sequences` texts, whose keys and values `text` has.

    A path keeps at most `capacity` tokens, START and END included.
    """

    def __init__(
        self,
        thinker: QuietThinker,
        text: TextAttention,
        sequences: int,
        run: range,
        *,
        capacity: int,
        per_position: int = 1,
    ) -> None:
        self.thinker = thinker
        self.shape = sequences, len(run), per_position
        device = thinker.lm_head_VH.device
        self._attention = GrowingPathAttention(
            text, len(run), per_position, capacity, first=run.start
        )
        self._text_position_BC = text.positions(run.start, run.stop, device)
        self._fed = 0

    def start(self) -> Tensor:
        """Feed START: its hidden states, (N, H).

        The paths of a position are equal up to here: START is fed once for all of them.
        """
        sequences, positions, per_position = self.shape
        start_BCH = self.thinker.start_H.expand(sequences, positions, -1)
        hidden_BCH = self._feed(start_BCH, self._text_position_BC)
        self._keep()
        return hidden_BCH.repeat_interleave(per_position, dim=1).flatten(0, 1)

    def append(self, ids_N: Tensor) -> Tensor:
        """Feed the next token of every thought: its hidden states, (N, H)."""
        hidden_NH = self._feed_paths(self.thinker.embed(ids_N))
        self._keep()
        return hidden_NH

    def end(self) -> Tensor:
        """Feed END behind every thought: its hidden states, (N, H). END is not kept, so that the
        thoughts can go on.
        """
        sequences, positions, per_position = self.shape
        rows = sequences * positions * per_position
        return self._feed_paths(self.thinker.end_H.expand(rows, -1))

    def _feed_paths(self, embedding_NH: Tensor) -> Tensor:
        sequences, _, per_position = self.shape
        position = self._text_position_BC.repeat_interleave(per_position, dim=1)
        hidden = self._feed(embedding_NH.unflatten(0, (sequences, -1)), position)
        return hidden.flatten(0, 1)

    def _feed(self, embedding: Tensor, text_position: Tensor) -> Tensor:
        """One token of every path; the first of a path has the position after its text's."""
        return self.thinker.hidden_states(
            embedding, text_position + 1 + self._fed, thought_attention=self._attention
        )

    def _keep(self) -> None:
        self._attention.advance()
        self._fed += 1


def decode_thoughts(
    thinker: QuietThinker,
    text: TextAttention,
    sequences: int,
    run: range,
    budgets: Sequence[int],
    choose: ChooseTokens,
) -> Iterator[DecodedThought]:
    """A thought at each position of `run`, for each of the rising budgets; none for budget 0."""
    longest = budgets[-1]
    if not longest:
        return
    decoder = ThoughtDecoder(thinker, text, sequences, run, capacity=longest + 2)
    hidden_NH = decoder.start()
    ids_Nb = torch.empty((len(hidden_NH), 0), dtype=torch.int64, device=hidden_NH.device)
    for step in range(longest):
        next_N = choose(hidden_NH, step)
        ids_Nb = torch.cat([ids_Nb, next_N[:, None]], dim=1)
        hidden_NH = decoder.append(next_N)
        if step + 1 in budgets:
            end_NH = decoder.end()
            per_text = (sequences, -1)
            yield DecodedThought(
                step + 1, end_NH.unflatten(0, per_text), ids_Nb.unflatten(0, per_text)
            )


def seeded_tokens(
    thinker: QuietThinker, seeds: Sequence[int], run: Sequence[int], temperature: float
) -> ChooseTokens:
    """Greedy tokens at temperature 0, else samples with the server's noise, which is a function of
    the text's seed, the position and the step: the same seed gives the same thoughts in the server,
    whatever else is in the batch.
    """
    seed_N = torch.tensor(seeds).repeat_interleave(len(run))
    position_N = torch.tensor(run).repeat(len(seeds))

    def choose(hidden_NH: Tensor, step: int) -> Tensor:
        ids_N = torch.empty(len(hidden_NH), dtype=torch.int64, device=hidden_NH.device)
        for rows, logits_NV in thinker.logits(hidden_NH):
            if temperature == 0:
                ids_N[rows] = logits_NV.argmax(dim=-1)
                continue
            noise = (seed_N[rows], position_N[rows], torch.full_like(seed_N[rows], step))
            ids_N[rows] = draw_thought_tokens(
                logits_NV,
                logits_NV.new_full((len(logits_NV),), temperature),
                *(each_N.to(logits_NV.device) for each_N in noise),
            )
        return ids_N

    return choose
