"""Losses and mixing weights of tokens in solved problems, by kind of token, with a thought at each.

Shapes: B rows, T tokens, V vocabulary, b thought tokens; N tokens in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.config import Objective, Optimisation, Preset, Thinking
from training.demo.accuracy import held_out
from training.demo.corpus.documents import FAMILIES
from training.demo.forced_thoughts import Evaluation
from training.thoughts.batch import Batch, make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.sampling import ChooseThoughts, greedy_draw, random_draw
from training.thoughts.training_step import training_step

EASY_NATS = 0.1
"""A token whose loss in the base model is lower is `easy`; one whose loss is higher, but that is no
answer, is `open` (names, numbers and operations that cannot be predicted)."""
KINDS = ("answer", "open", "easy")
DOCUMENTS_PER_BATCH = 10


@dataclass(frozen=True)
class KindScore:
    """Of one kind of token: how many, their mean losses without and with thoughts (nats), the mean
    and the standard deviation of the mixing weight.
    """

    tokens: int
    base_nll: float
    nll: float
    mixing_weight: float
    spread: float


class SolvedProblem(NamedTuple):
    """A solved problem as ids, and the position of its answer."""

    ids: list[int]
    answer: int


def solved(
    tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation, number: int
) -> list[SolvedProblem]:
    """Held-out problems of all families with their answers, sorted by length."""
    chosen = [p for family in FAMILIES for p in held_out(family, evaluation)[:number]]
    documents = [
        SolvedProblem(
            [
                *tokenizer.encode(problem.prompt + problem.answer + problem.ending),
                tokenizer.eos_token_id,
            ],
            len(tokenizer.encode(problem.prompt)),
        )
        for problem in chosen
    ]
    return sorted(documents, key=lambda document: len(document.ids))


def pad(rows: Sequence[list[int]], padding: int) -> Batch:
    """Rows of ids that end in end-of-text, which is also the padding; a genuine one is a target."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return make_batch(ids, padding, attention_mask=mask)


class TokenFacts(NamedTuple):
    """Of every predicted token, (N,) each; `repeated` is the share of a thought's tokens that are
    at the same place in the previous token's thought, where there is one (else nan).
    """

    kind: Tensor
    base_nll: Tensor
    nll: Tensor
    mixing_weight: Tensor
    repeated: Tensor


@torch.inference_mode()
def token_facts(
    thinker: QuietThinker,
    base: QuietThinker,
    documents: Sequence[SolvedProblem],
    padding: int,
    budget: int,
    choose_thoughts: ChooseThoughts,
) -> TokenFacts:
    """Think at every token of the documents; `base` is the base model, whose losses decide which
    tokens are easy.
    """
    found = []
    for start in range(0, len(documents), DOCUMENTS_PER_BATCH):
        part = documents[start : start + DOCUMENTS_PER_BATCH]
        batch = pad([document.ids for document in part], padding)
        found.append(_batch_facts(thinker, base, batch, part, budget, choose_thoughts))
    return TokenFacts(*(torch.cat(facts) for facts in zip(*found, strict=True)))


def _batch_facts(
    thinker: QuietThinker,
    base: QuietThinker,
    batch: Batch,
    documents: Sequence[SolvedProblem],
    budget: int,
    choose_thoughts: ChooseThoughts,
) -> TokenFacts:
    one_thought = Preset(
        Thinking(budget=budget, ahead=1, per_position=1),
        Objective(policy_weight=0.0, averaging="targets"),
        Optimisation(),
    )
    output = training_step(thinker, batch, one_thought, choose_thoughts)
    without = Preset(Thinking(0, 1, 1), one_thought.objective, one_thought.optimisation)
    base_nll_BT = training_step(base, batch, without, choose_thoughts).tokens.base_nll_BT
    kind_BT = torch.where(base_nll_BT < EASY_NATS, KINDS.index("easy"), KINDS.index("open"))
    for row, document in enumerate(documents):
        kind_BT[row, document.answer - 1] = KINDS.index("answer")
    thoughts_BTb = output.thoughts.ids[:, :-1, 0]
    same_BT = (thoughts_BTb[:, 1:] == thoughts_BTb[:, :-1]).float().mean(dim=-1)
    repeated_BT = torch.cat([same_BT.new_full((len(same_BT), 1), torch.nan), same_BT], dim=1)
    real_BT = output.real_BTS[..., 0]
    losses = output.tokens
    return TokenFacts(
        kind_BT[real_BT],
        losses.base_nll_BT[real_BT],
        losses.talk_nll_BTPS[..., 0, 0][real_BT],
        losses.mixing_weight_BTPS[..., 0, 0][real_BT],
        repeated_BT[real_BT],
    )


def thoughts_at(temperature: float, seed: int) -> ChooseThoughts:
    """Greedy thoughts at temperature 0, else samples."""
    if temperature == 0:
        return greedy_draw
    return random_draw(temperature, torch.Generator().manual_seed(seed))


def by_kind(facts: TokenFacts) -> dict[str, KindScore]:
    """Means over the tokens of each kind, and over all; 0 where there are none."""
    every = torch.ones_like(facts.kind, dtype=torch.bool)
    choices = {kind: facts.kind == number for number, kind in enumerate(KINDS)} | {"all": every}
    return {kind: _token_score(facts, chosen) for kind, chosen in choices.items()}


def _token_score(facts: TokenFacts, chosen: Tensor) -> KindScore:
    if not chosen.any():
        return KindScore(0, 0.0, 0.0, 0.0, 0.0)
    return KindScore(
        int(chosen.sum()),
        float(facts.base_nll[chosen].mean()),
        float(facts.nll[chosen].mean()),
        float(facts.mixing_weight[chosen].mean()),
        float(facts.mixing_weight[chosen].std(correction=0)),
    )
