"""The outcome of an item in every cell of the sweep, as recorded: from token scores to numbers."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeAlias

from transformers import PreTrainedTokenizerBase

from quietstar_infer.sampling import seed_from_text
from training.evaluations.backends.base import Backend, PassageScores, Sampling, TokenScore
from training.evaluations.cost import Cost
from training.evaluations.sweep import Cell
from training.evaluations.tasks.definitions import ChainTask, Row, gold_number
from training.evaluations.tasks.passages import PLAIN, Item
from training.evaluations.tasks.prompts import PromptFormat

Outcome: TypeAlias = dict[str, Any]
"""JSON."""
Answer: TypeAlias = int | str
"""A number, or one in words where a task has its answers in words."""
_NUMBER = re.compile(r"\d+")
# Every server accepts seeds below this.
_SEEDS = 2**31


def answer_outcome(scores: Sequence[TokenScore]) -> Outcome:
    """Of one answer, teacher-forced.

    `accuracy` is the official code's: the product of the tokens' probabilities among the allowed
    ones, over those tokens that are allowed. `exact`: greedy decoding would give this answer.
    """
    among = [score.among_allowed for score in scores if score.among_allowed is not None]
    return {
        "accuracy": math.exp(sum(among)) if among else 0.0,
        "exact": all(score.is_likeliest for score in scores),
        "logprob": sum(score.logprob for score in scores),
    }


def choice_outcome(by_choice: Sequence[Sequence[TokenScore]], gold: int) -> Outcome:
    """Of several answers: the likeliest should be the right one, `gold`."""
    logprobs = [sum(score.logprob for score in scores) for scores in by_choice]
    return {
        "logprobs": logprobs,
        "right": max(range(len(logprobs)), key=logprobs.__getitem__) == gold,
    }


def text_outcome(scores: Sequence[TokenScore]) -> Outcome:
    """Of a document: losses in nats by token; mixing weights, thoughts and expected gains where
    they are known. A token that was not thought about has no weight (None) and an empty thought.
    """
    # Rounding can make the log-probability of a certain token positive.
    outcome: Outcome = {"nll": [round(max(0.0, -score.logprob), 6) for score in scores]}
    if any(score.mixing_weight is not None for score in scores):
        outcome["weights"] = [_rounded(score.mixing_weight) for score in scores]
    if all(score.thought_ids is not None for score in scores):
        outcome["thoughts"] = [score.thought_ids for score in scores]
    if all(score.expected_gain is not None for score in scores):
        outcome["expected_gains"] = [_rounded(score.expected_gain) for score in scores]
    return outcome


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def item_outcomes(kind: str, item: Item, scores: Sequence[PassageScores]) -> dict[str, Outcome]:
    """By cell, of an item whose passages have been scored, and what they cost; for the kinds but
    `chain`.
    """
    of: Callable[[list[list[TokenScore]]], Outcome] = {
        "number": lambda by_passage: answer_outcome(by_passage[0]),
        "letter": lambda by_passage: answer_outcome(by_passage[0]),
        "choice": lambda by_passage: choice_outcome(by_passage, item.gold),
        "text": lambda by_passage: text_outcome(by_passage[0]),
    }[kind]
    outcomes = {}
    for cell in scores[0]:
        scored = [each[cell] for each in scores]
        cost = sum((one.cost for one in scored), Cost(0))
        outcomes[cell.key] = {**of([one.scores for one in scored]), "cost": asdict(cost)}
    return outcomes


def chain_outcomes(
    task: ChainTask,
    row: Row,
    number: int,
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    cells: Sequence[Cell],
    seed: int,
    form: PromptFormat = PLAIN,
) -> Iterator[tuple[str, Outcome]]:
    """By cell, of the votes on one question; `number` is the question's."""
    prompt, gold = form.prompt(task.ask(row), tokenizer), first_number(gold_number(row), task.words)
    seeds = tuple(
        seed_from_text(f"{seed}/{number}/{vote}") % _SEEDS
        for vote in range(task.votes if task.temperature else 1)
    )
    reasoning = Sampling(task.max_tokens, task.temperature, seeds, task.stop)
    for cell in cells:
        asked = form.ids(prompt, tokenizer)
        chains = backend.continue_text(asked, cell, reasoning)
        cost = sum((chain.cost for chain in chains), Cost(0))
        texts = [chain.text for chain in chains]
        if task.conclusion is None:
            answers = [last_number(text, task.words) for text in texts]
        else:
            concluded = _conclude(task, prompt, texts, seeds, cell, backend, tokenizer, form)
            texts, answers = concluded.texts, concluded.answers
            cost += concluded.cost
        yield cell.key, {**vote_outcome(answers, gold, texts), "cost": asdict(cost)}


class _Concluded(NamedTuple):
    """Chains with their conclusions, the answers in these, and what these cost."""

    texts: list[str]
    answers: list[Answer | None]
    cost: Cost


def _conclude(
    task: ChainTask,
    prompt: str,
    chains: Sequence[str],
    seeds: Sequence[int],
    cell: Cell,
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    form: PromptFormat,
) -> _Concluded:
    """Continue each chain with the conclusion, for its answer."""
    assert task.conclusion is not None
    texts, answers, cost = [], [], Cost(0)
    for chain, seed in zip(chains, seeds, strict=True):
        concluding = (prompt + chain).rstrip() + task.conclusion
        short = Sampling(task.conclusion_tokens, task.temperature, (seed,), task.stop)
        (found,) = backend.continue_text(form.ids(concluding, tokenizer), cell, short)
        texts.append(concluding.removeprefix(prompt) + found.text)
        answers.append(first_number(found.text, task.words))
        cost += found.cost
    return _Concluded(texts, answers, cost)


def vote_outcome(
    answers: Sequence[Answer | None], gold: Answer | None, texts: Sequence[str]
) -> Outcome:
    """The most frequent answer counts, the first of equally frequent ones; a missing answer
    has votes, too, as in the official script."""
    ((majority, _),) = Counter(answers).most_common(1)
    return {
        "answers": list(answers),
        "right": majority is not None and majority == gold,
        "votes_right": sum(answer is not None and answer == gold for answer in answers)
        / len(answers),
        "texts": list(texts),
    }


def first_number(text: str, words: Sequence[str] = ()) -> Answer | None:
    """The first whole number, without its commas, or the first of the words that stand for one."""
    return next(iter(_numbers(text, words)), None)


def last_number(text: str, words: Sequence[str] = ()) -> Answer | None:
    """The last whole number, without its commas, or the last of the words that stand for one."""
    return next(iter(reversed(_numbers(text, words))), None)


def _numbers(text: str, words: Sequence[str]) -> Sequence[Answer]:
    if words:
        return re.findall(rf"\b(?:{'|'.join(map(re.escape, words))})\b", text)
    return [int(number) for number in _NUMBER.findall(text.replace(",", ""))]
