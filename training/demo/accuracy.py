"""What a thinker says after quiet thoughts, measured as it is served: mixed, at every budget.

Shapes: B rows, T tokens, H hidden, V vocabulary, b thought tokens.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from quietstar_infer.mixing import mix
from quietstar_infer.sampling import mask_meta_tokens
from training.thoughts.batch import Batch, make_batch
from training.demo.corpus.documents import FAMILIES
from training.demo.forced_thoughts import Evaluation, by_length, choose, token_id
from training.thoughts.training_step import fast_step
from training.thoughts.model import QuietThinker
from training.config import Objective, Optimisation, Preset, Thinking
from training.demo.corpus.problems import Problem, held_out_problems
from training.thoughts.sampling import ChooseThoughts, draw

SURE = 0.1
"""Nats: a token that costs the trunk less is `easy`; what costs more, but is no answer, is `open`
(names, numbers and operations that nobody could know)."""
KINDS = ("answer", "open", "easy")
DOCUMENTS_AT_A_TIME = 10


class Answered(NamedTuple):
    """After a thought, per row: the token said (B,), the mixing weight (B,), the thought (B, b)."""

    ids: Tensor
    mixing_weight: Tensor
    thought_ids: Tensor


@dataclass(frozen=True)
class Score:
    """Share of right answers, and the mean mixing weight when the answer was due."""

    accuracy: float
    mixing_weight: float


Scores = dict[str, dict[int, Score]]
"""By family and thought budget."""


@dataclass(frozen=True)
class TokenScore:
    """Of one kind of token: how many, their mean losses without and with thoughts (nats), the mean
    and the standard deviation of the mixing weight.
    """

    tokens: int
    base_nll: float
    nll: float
    mixing_weight: float
    spread: float


def held_out(family: str, evaluation: Evaluation) -> list[Problem]:
    """The problems of an evaluation."""
    return list(
        itertools.islice(held_out_problems(FAMILIES[family], evaluation.seed), evaluation.problems)
    )


def read_on(thinker: QuietThinker, embeddings_BTH: Tensor, cache: DynamicCache) -> Tensor:
    """The trunk's output at the last token, (B, H): of a whole text, or of one token more."""
    known, more = cache.get_seq_length(), embeddings_BTH.shape[1]
    assert not known or more == 1  # a single token sees all there is, which the mask says
    mask = torch.ones(len(embeddings_BTH), 1, 1, known + 1, dtype=torch.bool) if known else None
    output = thinker.trunk.base_model(
        inputs_embeds=embeddings_BTH, past_key_values=cache, attention_mask=mask
    )
    hidden_BTH: Tensor = output.last_hidden_state
    return hidden_BTH[:, -1]


@torch.inference_mode()
def answer(
    thinker: QuietThinker,
    prompts_BT: Tensor,
    budgets: Sequence[int],
    temperature: float,
    generator: torch.Generator,
) -> Iterator[tuple[int, Answered]]:
    """The likeliest next token after thoughts of each budget; shorter thoughts begin longer ones.

    Budget 0 does not think at all: its mixing weight is 0.
    """
    start_B1H, end_B1H = (
        x.expand(len(prompts_BT), 1, -1) for x in (thinker.start_H, thinker.end_H)
    )
    cache = DynamicCache()
    base_BH = read_on(thinker, thinker.embed(prompts_BT), cache)
    last_BH = read_on(thinker, start_B1H, cache)
    thought_Bb = prompts_BT[:, :0]
    for budget in range(max(budgets) + 1):
        if budget in budgets:
            thought_BH, weight_B1 = base_BH, base_BH.new_zeros(len(base_BH), 1)
            if budget:
                thought_BH = read_on(thinker, end_B1H, cache)
                cache.crop(-1)
                weight_B1 = thinker.mixing_head.weight(base_BH, thought_BH)
            mixed_BH = mix(base_BH, thought_BH, weight_B1)
            said_B = allowed_logits(thinker, mixed_BH).argmax(dim=-1)
            yield budget, Answered(said_B, weight_B1[:, 0], thought_Bb)
        if budget < max(budgets):
            next_B1 = choose(allowed_logits(thinker, last_BH), temperature, generator)
            thought_Bb = torch.cat([thought_Bb, next_B1], dim=1)
            last_BH = read_on(thinker, thinker.embed(next_B1), cache)


def allowed_logits(thinker: QuietThinker, hidden_BH: Tensor) -> Tensor:
    """Logits (B, V) without START and END."""
    logits_BV: Tensor = hidden_BH @ thinker.lm_head_VH.T
    return mask_meta_tokens(logits_BV, thinker.meta_token_ids)


def score(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    evaluation: Evaluation,
) -> dict[int, Score]:
    """Accuracy and mixing weight on problems, by budget."""
    generator = torch.Generator().manual_seed(evaluation.seed)
    right = dict.fromkeys(evaluation.budgets, 0)
    weight = dict.fromkeys(evaluation.budgets, 0.0)
    for prompts_BT, group in by_length(problems, tokenizer):
        expected_B = torch.tensor([token_id(tokenizer, problem.answer) for problem in group])
        for budget, answered in answer(
            thinker, prompts_BT, evaluation.budgets, evaluation.temperature, generator
        ):
            right[budget] += int((answered.ids == expected_B).sum())
            weight[budget] += float(answered.mixing_weight.sum())
    number = len(problems)
    return {b: Score(right[b] / number, weight[b] / number) for b in evaluation.budgets}


def quiet_scores(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> Scores:
    """Every family on held-out problems."""
    return {
        family: score(thinker, tokenizer, held_out(family, evaluation), evaluation)
        for family in FAMILIES
    }


class Document(NamedTuple):
    """A solved problem as ids, and where its answer stands."""

    ids: list[int]
    answer: int


def solved(
    tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation, number: int
) -> list[Document]:
    """Held-out problems of all families with their answers, sorted by length."""
    chosen = [p for family in FAMILIES for p in held_out(family, evaluation)[:number]]
    documents = [
        Document(
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
    """Rows of ids that end in end-of-text, which is read where it is not padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return make_batch(ids, padding, attention_mask=mask)


class TokenFacts(NamedTuple):
    """Of every token that was predicted, N in all; `repeated` is the share of a thought's tokens
    that stand at the same place in the previous token's thought, where there is one (else nan).
    """

    kind: Tensor
    base_nll: Tensor
    nll: Tensor
    mixing_weight: Tensor
    repeated: Tensor


@torch.inference_mode()
def token_facts(
    thinker: QuietThinker,
    sure: QuietThinker,
    documents: Sequence[Document],
    padding: int,
    budget: int,
    choose_thoughts: ChooseThoughts,
) -> TokenFacts:
    """Think at every token of the documents; `sure` is the trunk that says what is easy."""
    found = []
    for start in range(0, len(documents), DOCUMENTS_AT_A_TIME):
        part = documents[start : start + DOCUMENTS_AT_A_TIME]
        batch = pad([document.ids for document in part], padding)
        found.append(_batch_facts(thinker, sure, batch, part, budget, choose_thoughts))
    return TokenFacts(*(torch.cat(facts) for facts in zip(*found, strict=True)))


def _batch_facts(
    thinker: QuietThinker,
    sure: QuietThinker,
    batch: Batch,
    documents: Sequence[Document],
    budget: int,
    choose_thoughts: ChooseThoughts,
) -> TokenFacts:
    only_once = Preset(
        Thinking(budget=budget, ahead=1, per_position=1),
        Objective(policy_weight=0.0, averaging="targets"),
        Optimisation(),
    )
    output = fast_step(thinker, batch, only_once, choose_thoughts)
    without = Preset(Thinking(0, 1, 1), only_once.objective, only_once.optimisation)
    trunk_nll_BT = fast_step(sure, batch, without, choose_thoughts).tokens.base_nll_BT
    kind_BT = torch.where(trunk_nll_BT < SURE, KINDS.index("easy"), KINDS.index("open"))
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


def greedy_thoughts(logits_NV: Tensor, _: Tensor, step: int, first_row: int) -> Tensor:
    """The likeliest thought tokens."""
    return logits_NV.argmax(dim=-1)


def thoughts_at(temperature: float, seed: int) -> ChooseThoughts:
    """Greedy thoughts at temperature 0, else draws."""
    if temperature == 0:
        return greedy_thoughts
    return draw(temperature, torch.Generator().manual_seed(seed))


def by_kind(facts: TokenFacts) -> dict[str, TokenScore]:
    """Means over the tokens of each kind, and over all; 0 where there are none."""
    every = torch.ones_like(facts.kind, dtype=torch.bool)
    choices = {kind: facts.kind == number for number, kind in enumerate(KINDS)} | {"all": every}
    return {kind: _token_score(facts, chosen) for kind, chosen in choices.items()}


def _token_score(facts: TokenFacts, chosen: Tensor) -> TokenScore:
    if not chosen.any():
        return TokenScore(0, 0.0, 0.0, 0.0, 0.0)
    return TokenScore(
        int(chosen.sum()),
        float(facts.base_nll[chosen].mean()),
        float(facts.nll[chosen].mean()),
        float(facts.mixing_weight[chosen].mean()),
        float(facts.mixing_weight[chosen].std(correction=0)),
    )
