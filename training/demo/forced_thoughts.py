"""How often a base model answers rightly: at once, and after a forced thought of b tokens.

A forced thought is part of the visible text: the prompt, a dash, b tokens that the model samples, a
dash, then the answer. New START and END are the dash's embedding, so this is what the checkpoint
would predict with a mixing weight of 1 (budget 0 leaves out both dashes).
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import Problem, held_out_problems
from training.demo.report import FamilyAccuracy
from training.errors import UsageError

DEMO_BUDGETS = (0, 2, 4, 8, 12, 16)


@dataclass(frozen=True)
class Evaluation:
    """What to measure. `temperature` is that of the thoughts: 0 is greedy; answers always are."""

    problems: int = 500
    budgets: tuple[int, ...] = DEMO_BUDGETS
    temperature: float = 0.0
    seed: int = 1


def token_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The id of a text that is one token; `UsageError` if it is not."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(f"the tokenizer splits {text!r} into {len(ids)} tokens; it should be one")
    return int(ids[0])


def sampled_tokens(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token per row, (B, 1): the likeliest at temperature 0, else a sample."""
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    chances = torch.softmax(logits_BV / temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator)


def continue_thoughts(
    model: PreTrainedModel,
    prompts_BT: Tensor,
    length: int,
    banned: Sequence[int],
    evaluation: Evaluation,
) -> Tensor:
    """Continue the prompts, which end in a dash, by `length` thought tokens: (B, length).

    `banned` ids (the meta-tokens) are never chosen.
    """
    generator = torch.Generator().manual_seed(evaluation.seed)
    cache = DynamicCache()
    fed, thought = prompts_BT, prompts_BT[:, :0]
    for _ in range(length):
        logits_BV = model(input_ids=fed, past_key_values=cache).logits[:, -1]
        logits_BV[:, list(banned)] = -torch.inf
        fed = sampled_tokens(logits_BV, evaluation.temperature, generator)
        thought = torch.cat([thought, fed], dim=1)
    return thought


def likeliest_answers(model: PreTrainedModel, text_BT: Tensor, dash: int) -> Tensor:
    """The likeliest next token of each row, (B,), except the dash, which would begin an aside."""
    logits_BV = model(input_ids=text_BT).logits[:, -1]
    logits_BV[:, dash] = -torch.inf
    best_B: Tensor = logits_BV.argmax(-1)
    return best_B


def by_length(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[Tensor, list[Problem]]]:
    """Group problems by the length of their prompt, so that a group (B, T) needs no padding."""
    groups: dict[int, list[tuple[list[int], Problem]]] = defaultdict(list)
    for problem in problems:
        ids = tokenizer.encode(problem.prompt)
        groups[len(ids)].append((ids, problem))
    return [
        (torch.tensor([ids for ids, _ in group]), [problem for _, problem in group])
        for group in groups.values()
    ]


@torch.inference_mode()
def count_right(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    evaluation: Evaluation,
) -> dict[int, int]:
    """Number of right answers by budget."""
    dash = token_id(tokenizer, DASH)
    banned = [token_id(tokenizer, token) for token in (START_TOKEN, END_TOKEN)]
    right = dict.fromkeys(evaluation.budgets, 0)
    for prompts_BT, group in by_length(problems, tokenizer):
        dash_B1 = torch.full((len(group), 1), dash)
        opened = torch.cat([prompts_BT, dash_B1], dim=1)
        thought = continue_thoughts(model, opened, max(evaluation.budgets), banned, evaluation)
        expected = torch.tensor([token_id(tokenizer, problem.answer) for problem in group])
        for budget in evaluation.budgets:
            closed = torch.cat([opened, thought[:, :budget], dash_B1], dim=1)
            text = closed if budget else prompts_BT
            right[budget] += int((likeliest_answers(model, text, dash) == expected).sum())
    return right


def forced_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> FamilyAccuracy:
    """Measure every family on held-out problems, all different, of two steps or more."""
    table: FamilyAccuracy = {}
    for family, make in FAMILIES.items():
        held_out = held_out_problems(make, evaluation.seed)
        problems = list(itertools.islice(held_out, evaluation.problems))
        right = count_right(model, tokenizer, problems, evaluation)
        table[family] = {budget: n / len(problems) for budget, n in right.items()}
    return table
