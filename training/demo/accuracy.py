"""How often a thinker's answers are right after thoughts of every budget, mixed as it is served.

Shapes: B rows, T tokens, H hidden, V vocabulary, b thought tokens.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quietstar_infer.sampling import mask_meta_tokens
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import Problem, held_out_problems
from training.demo.forced_thoughts import Evaluation, by_length, sampled_tokens, token_id
from training.kernels.thought_attention import TextAttention
from training.thoughts.decode import ChooseTokens, decode_thoughts
from training.thoughts.model import QuietThinker


class Answered(NamedTuple):
    """After a thought, per row: the answer (B,), the mixing weight (B,), the thought (B, b)."""

    ids: Tensor
    mixing_weight: Tensor
    thought_ids: Tensor


@dataclass(frozen=True)
class AnswerScore:
    """The share of right answers, and the mean mixing weight of the answers' predictions."""

    accuracy: float
    mixing_weight: float


FamilyScores = dict[str, dict[int, AnswerScore]]
"""By family and thought budget."""


def held_out(family: str, evaluation: Evaluation) -> list[Problem]:
    """The problems of an evaluation."""
    return list(
        itertools.islice(held_out_problems(FAMILIES[family], evaluation.seed), evaluation.problems)
    )


def quiet_scores(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> FamilyScores:
    """Every family on held-out problems."""
    return {
        family: problem_scores(thinker, tokenizer, held_out(family, evaluation), evaluation)
        for family in FAMILIES
    }


def problem_scores(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    evaluation: Evaluation,
) -> dict[int, AnswerScore]:
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
    return {b: AnswerScore(right[b] / number, weight[b] / number) for b in evaluation.budgets}


@torch.inference_mode()
def answer(
    thinker: QuietThinker,
    prompts_BT: Tensor,
    budgets: Sequence[int],
    temperature: float,
    generator: torch.Generator,
) -> Iterator[tuple[int, Answered]]:
    """The likeliest next token after thoughts of each of the rising budgets; budget 0 does not
    think, and its mixing weight is 0.
    """
    text = TextAttention(needs_grad=False)
    base_BH = thinker.text_states(text, prompts_BT)[:, -1]
    if 0 in budgets:
        no_weight_B = base_BH.new_zeros(len(base_BH))
        yield 0, Answered(_likeliest(thinker, base_BH), no_weight_B, prompts_BT[:, :0])
    sequences, positions = prompts_BT.shape
    last = range(positions - 1, positions)
    choose = _generator_tokens(thinker, temperature, generator)
    for thought in decode_thoughts(thinker, text, sequences, last, budgets, choose):
        mixed_BH, weight_B = thinker.mix(base_BH, thought.hidden_BCH[:, 0])
        ids_B = _likeliest(thinker, mixed_BH)
        yield thought.budget, Answered(ids_B, weight_B, thought.ids_BCb[:, 0])


def _generator_tokens(
    thinker: QuietThinker, temperature: float, generator: torch.Generator
) -> ChooseTokens:
    """Greedy tokens at temperature 0, else samples by torch's generator."""

    def choose(hidden_BH: Tensor, step: int) -> Tensor:
        logits_BV = _all_logits(thinker, hidden_BH)
        return sampled_tokens(logits_BV, temperature, generator)[:, 0]

    return choose


def _likeliest(thinker: QuietThinker, hidden_BH: Tensor) -> Tensor:
    return _all_logits(thinker, hidden_BH).argmax(dim=-1)


def _all_logits(thinker: QuietThinker, hidden_BH: Tensor) -> Tensor:
    """Logits of all rows at once, (B, V): the generator's samples depend on the number of rows."""
    logits_BV: Tensor = hidden_BH @ thinker.lm_head_VH.T
    return mask_meta_tokens(logits_BV, thinker.meta_token_ids)
