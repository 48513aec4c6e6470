"""How often a trunk answers rightly: at once, and after a forced thought of b tokens.

A forced thought stands in the text itself: the prompt, a dash, b tokens of the model's own, a dash,
then the answer. The freshly initialised START and END are the dash's embedding, so this is what the
checkpoint says if its mixing weight is forced to 1 (the budget 0 leaves out both dashes).
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
from training.errors import UsageError
from training.demo.corpus.problems import Problem, held_out_problems

AccuracyTable = dict[str, dict[int, float]]
"""Accuracy (0 to 1) by family and thought budget."""

BUDGETS = (0, 2, 4, 8, 12, 16)


@dataclass(frozen=True)
class Evaluation:
    """What to measure. `temperature` is that of the thoughts: 0 is greedy; answers always are."""

    problems: int = 500
    budgets: tuple[int, ...] = BUDGETS
    temperature: float = 0.0
    seed: int = 1


def token_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The id of a text that is one token; `UsageError` if it is not."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(f"the tokenizer splits {text!r} into {len(ids)} tokens; it should be one")
    return int(ids[0])


def choose(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token per row, (B, 1): the likeliest at temperature 0, else a sample."""
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    chances = torch.softmax(logits_BV / temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator)


def write_thoughts(
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
        fed = choose(logits_BV, evaluation.temperature, generator)
        thought = torch.cat([thought, fed], dim=1)
    return thought


def answers(model: PreTrainedModel, text_BT: Tensor, dash: int) -> Tensor:
    """The likeliest next token of each row, (B,), except the dash: an aside is no answer."""
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
        thought = write_thoughts(model, opened, max(evaluation.budgets), banned, evaluation)
        expected = torch.tensor([token_id(tokenizer, problem.answer) for problem in group])
        for budget in evaluation.budgets:
            closed = torch.cat([opened, thought[:, :budget], dash_B1], dim=1)
            text = closed if budget else prompts_BT
            right[budget] += int((answers(model, text, dash) == expected).sum())
    return right


def accuracy_table(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> AccuracyTable:
    """Measure every family on held-out problems, all different, of two steps or more."""
    table: AccuracyTable = {}
    for family, make in FAMILIES.items():
        held_out = held_out_problems(make, evaluation.seed)
        problems = list(itertools.islice(held_out, evaluation.problems))
        right = count_right(model, tokenizer, problems, evaluation)
        table[family] = {budget: n / len(problems) for budget, n in right.items()}
    return table


def markdown(table: AccuracyTable) -> str:
    """The table in Markdown, one row per family."""
    budgets = list(next(iter(table.values())))
    head = ["family", *(f"b={budget}" if budget else "direct" for budget in budgets)]
    rows = [[family, *(f"{100 * a:.1f} %" for a in row.values())] for family, row in table.items()]
    rule = ["---", *("---:" for _ in budgets)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])
