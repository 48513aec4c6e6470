"""What is measured of a thinker of the demonstration, as it stands in `results.json`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from quietstar_infer.config import load_tokenizer
from training.demo.accuracy import answer, held_out, problem_scores, quiet_scores
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import LONGEST_WORKING, Problem
from training.demo.forced_thoughts import Evaluation
from training.demo.recipe import DemoRecipe
from training.demo.report import WEIGHT_BINS, Results
from training.demo.token_statistics import (
    KINDS,
    TokenFacts,
    by_kind,
    solved,
    thoughts_at,
    token_facts,
)
from training.thoughts.model import QuietThinker
from training.trainer.build import ThinkingStep

TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}


def measure_without_thoughts(recipe: DemoRecipe, folder: Path) -> Results:
    """The accuracy of answers without a thought, by family."""
    torch.set_num_threads(1)
    thinker, tokenizer = QuietThinker.from_checkpoint(folder), load_tokenizer(folder)
    scores = quiet_scores(thinker, tokenizer, replace(recipe.evaluation, budgets=(0,)))
    return {family: by_budget[0].accuracy for family, by_budget in scores.items()}


class Course(TrainerCallback):
    """Measures at every evaluation of a run: losses and mixing weights by kind of token, after
    sampled thoughts.
    """

    def __init__(
        self, recipe: DemoRecipe, base_model: Path, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.recipe = recipe
        self.base_model = QuietThinker.from_checkpoint(base_model)
        self.tokenizer = tokenizer
        self.measured: list[Results] = []

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model at this step."""
        model: ThinkingStep = kwargs["model"]
        facts = token_facts(
            model.thinker,
            self.base_model,
            solved(self.tokenizer, self.recipe.evaluation, self.recipe.watched),
            self.tokenizer.pad_token_id,
            LONGEST_WORKING,
            thoughts_at(1.0, self.recipe.evaluation.seed),
        )
        kinds = {kind: asdict(scores) for kind, scores in by_kind(facts).items()}
        self.measured.append({"step": state.global_step, "kinds": kinds})


def measure_thinker(
    recipe: DemoRecipe, thinker: QuietThinker, base_model: Path, tokenizer: PreTrainedTokenizerBase
) -> Results:
    """Accuracy, losses and mixing weights by budget, greedy and sampled, and some thoughts."""
    results: Results = {"thoughts": some_thoughts(thinker, tokenizer, recipe.evaluation)}
    for name, temperature in TEMPERATURES.items():
        evaluation = replace(recipe.evaluation, temperature=temperature)
        scores = quiet_scores(thinker, tokenizer, evaluation)
        results[name] = {
            "scores": {
                family: {str(budget): asdict(score) for budget, score in by_budget.items()}
                for family, by_budget in scores.items()
            },
            "tokens": measure_tokens(recipe, thinker, base_model, tokenizer, temperature),
        }
    return results


def measure_tokens(
    recipe: DemoRecipe,
    thinker: QuietThinker,
    base_model: Path,
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
) -> Results:
    """Losses, mixing weights and repetition by budget; a histogram of the weights at the budget of
    the longest working.
    """
    base = QuietThinker.from_checkpoint(base_model)
    documents = solved(tokenizer, recipe.evaluation, recipe.documents)
    results: Results = {}
    for budget in recipe.evaluation.budgets:
        if not budget:
            continue
        choose = thoughts_at(temperature, recipe.evaluation.seed)
        facts = token_facts(thinker, base, documents, tokenizer.pad_token_id, budget, choose)
        results[str(budget)] = {
            "kinds": {kind: asdict(scores) for kind, scores in by_kind(facts).items()},
            "repeated": float(facts.repeated.nanmean()),
        }
        if budget == LONGEST_WORKING:
            results[str(budget)]["histogram"] = histogram(facts)
    return results


def histogram(facts: TokenFacts) -> dict[str, list[int]]:
    """How many tokens of each kind have a mixing weight in each of `WEIGHT_BINS`."""
    last = len(WEIGHT_BINS) - 2
    bins_N = torch.bucketize(facts.mixing_weight, torch.tensor(WEIGHT_BINS), right=True) - 1
    return {
        kind: torch.bincount(
            bins_N[facts.kind == number].clamp(0, last), minlength=last + 1
        ).tolist()
        for number, kind in enumerate(KINDS)
    }


def first_wrong_at_once(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, problems: list[Problem]
) -> Problem:
    """The first problem that is not answered rightly without a thought (the first, if none is)."""
    at_once = Evaluation(budgets=(0,))
    wrong = (
        p for p in problems if not problem_scores(thinker, tokenizer, [p], at_once)[0].accuracy
    )
    return next(wrong, problems[0])


def some_thoughts(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> list[Results]:
    """Sampled thoughts: one before an answer of each family, to the first problem that is too hard
    without, and one in the middle of a problem.
    """
    problems = [
        first_wrong_at_once(thinker, tokenizer, held_out(family, evaluation)) for family in FAMILIES
    ]
    prompts = [tokenizer.encode(problem.prompt) for problem in problems]
    prompts.append(prompts[-1][: len(prompts[-1]) // 2])
    found = []
    for ids in prompts:
        generator = torch.Generator().manual_seed(evaluation.seed)
        answered = dict(answer(thinker, torch.tensor([ids]), (0, LONGEST_WORKING), 1.0, generator))
        at_once, thought = answered[0], answered[LONGEST_WORKING]
        found.append(
            {
                "text": tokenizer.decode(ids, skip_special_tokens=True),
                "at_once": tokenizer.decode(at_once.ids),
                "thought": tokenizer.decode(thought.thought_ids[0]),
                "mixing_weight": round(float(thought.mixing_weight), 3),
                "answer": tokenizer.decode(thought.ids),
            }
        )
    return found
