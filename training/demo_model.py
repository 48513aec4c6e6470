"""The demonstration model, taught: trunk, thinkers and controls of several seeds, all measured."""

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import MistralForCausalLM, PreTrainedTokenizerBase

from quietstar_infer.checkpoint import thought_tensor_shapes
from quietstar_infer.config import load_tokenizer
from training.checkpoint import ThoughtFacts, load_trunk, write_checkpoint
from training.corpus import FAMILIES
from training.demo import EXAMPLE_PROMPT, TRAINED_ON, DemoRecipe, build_demo
from training.evaluate import Evaluation
from training.model import QuietThinker
from training.problems import LONGEST_WORKING, Problem
from training.quiet import (
    KINDS,
    TokenFacts,
    answer,
    by_kind,
    held_out,
    quiet_scores,
    score,
    solved,
    thoughts_at,
    token_facts,
)
from training.report import WEIGHT_BINS, card
from training.teach import Lesson, teach, train_on

TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}
RESULTS = "results.json"

Results = dict[str, Any]
"""What was measured, ready for JSON; `training.report` reads it."""


@dataclass(frozen=True)
class DemoModelRecipe:
    """Everything that decides what is taught and measured.

    The model of the first seed is the one that is kept. Losses are measured on `documents` solved
    problems per family, the course of a lesson on `watched` every `watch_every` steps.
    """

    trunk: DemoRecipe = field(default_factory=DemoRecipe)
    lesson: Lesson = field(default_factory=Lesson)
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluation: Evaluation = field(default_factory=Evaluation)
    documents: int = 30
    watched: int = 10
    watch_every: int = 10


class Taught(NamedTuple):
    """A thinker's weights by official name, and what was measured of it and of its control."""

    tensors: dict[str, Tensor]
    thinker: Results
    control: Results


def build_demo_model(
    recipe: DemoModelRecipe, folder: Path, trunk: Path | None, workers: int
) -> Results:
    """Make the demonstration model in `folder`, from a trunk or from nothing, with its model card
    and `results.json`.
    """
    if trunk is None:
        trunk = folder / "trunk"
        build_demo(recipe.trunk, trunk)
    lessons = [replace(recipe.lesson, seed=seed) for seed in recipe.seeds]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        at_once = pool.submit(measure_plain, recipe, trunk)
        taught = list(pool.map(taught_by, [recipe] * len(lessons), [trunk] * len(lessons), lessons))
        results = write_demo_model(recipe, folder, trunk, at_once.result(), taught)
    if trunk == folder / "trunk":
        shutil.rmtree(trunk)
    return results


def write_demo_model(
    recipe: DemoModelRecipe, folder: Path, trunk: Path, at_once: Results, taught: list[Taught]
) -> Results:
    """Write the first thinker, its card and what was measured of all; `at_once` is the trunk's."""
    results = {
        "problems": recipe.evaluation.problems,
        "seeds": list(recipe.seeds),
        "steps": recipe.lesson.steps,
        "trunk": at_once,
        "controls": [each.control for each in taught],
        "thinkers": [each.thinker for each in taught],
    }
    write_thinker(folder, trunk, taught[0].tensors)
    (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(results), encoding="utf-8")
    return results


def open_thinker(folder: Path, scale: float) -> tuple[QuietThinker, PreTrainedTokenizerBase]:
    """A checkpoint, on one thread: the same seed then gives the same weights."""
    torch.set_num_threads(1)
    return QuietThinker.from_checkpoint(folder, scale), load_tokenizer(folder)


def measure_plain(recipe: DemoModelRecipe, folder: Path) -> Results:
    """The accuracy of a model that answers at once."""
    thinker, tokenizer = open_thinker(folder, 1.0)
    return _plain_scores(thinker, tokenizer, recipe.evaluation)


def _plain_scores(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> Results:
    scores = quiet_scores(thinker, tokenizer, replace(evaluation, budgets=(0,)))
    return {family: by_budget[0].accuracy for family, by_budget in scores.items()}


def taught_by(recipe: DemoModelRecipe, trunk: Path, lesson: Lesson) -> Taught:
    """Teach one thinker and its control, and measure both."""
    scale = lesson.settings.optimisation.embedding_scale
    control, tokenizer = open_thinker(trunk, scale)
    train_on(control, tokenizer, lesson)
    control_scores = _plain_scores(control, tokenizer, recipe.evaluation)
    thinker, _ = open_thinker(trunk, scale)
    course = Course(recipe, thinker, trunk, tokenizer)
    teach(thinker, tokenizer, lesson, course.watch)
    measured = measure_thinker(recipe, thinker, trunk, tokenizer)
    tensors = {name: tensor.contiguous() for name, tensor in thinker.official_tensors().items()}
    return Taught(tensors, measured | {"course": course.seen}, control_scores)


class Course:
    """Watches a lesson: losses and mixing weights by kind of token, after sampled thoughts."""

    def __init__(
        self,
        recipe: DemoModelRecipe,
        thinker: QuietThinker,
        trunk: Path,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.recipe = recipe
        self.thinker = thinker
        self.trunk = QuietThinker.from_checkpoint(trunk)
        self.tokenizer = tokenizer
        self.seen: list[Results] = []

    def watch(self, step: int) -> None:
        """Measure, every so many steps."""
        if step % self.recipe.watch_every:
            return
        facts = token_facts(
            self.thinker,
            self.trunk,
            solved(self.tokenizer, self.recipe.evaluation, self.recipe.watched),
            self.tokenizer.pad_token_id,
            LONGEST_WORKING,
            thoughts_at(1.0, self.recipe.evaluation.seed),
        )
        kinds = {kind: asdict(scores) for kind, scores in by_kind(facts).items()}
        self.seen.append({"step": step, "kinds": kinds})


def measure_thinker(
    recipe: DemoModelRecipe, thinker: QuietThinker, trunk: Path, tokenizer: PreTrainedTokenizerBase
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
            "tokens": measure_tokens(recipe, thinker, trunk, tokenizer, temperature),
        }
    return results


def measure_tokens(
    recipe: DemoModelRecipe,
    thinker: QuietThinker,
    trunk: Path,
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
) -> Results:
    """Losses, mixing weights and repetition by budget; at the longest working how the weights are
    spread.
    """
    sure = QuietThinker.from_checkpoint(trunk)
    documents = solved(tokenizer, recipe.evaluation, recipe.documents)
    results: Results = {}
    for budget in recipe.evaluation.budgets:
        if not budget:
            continue
        choose = thoughts_at(temperature, recipe.evaluation.seed)
        facts = token_facts(thinker, sure, documents, tokenizer.pad_token_id, budget, choose)
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
    wrong = (p for p in problems if not score(thinker, tokenizer, [p], at_once)[0].accuracy)
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


def write_thinker(folder: Path, trunk: Path, tensors: dict[str, Tensor]) -> None:
    """The checkpoint in the official layout."""
    thought = {name: tensors.pop(name) for name in thought_tensor_shapes(_hidden(tensors))}
    model = load_trunk(trunk)
    assert isinstance(model, MistralForCausalLM)  # build_demo's
    model.load_state_dict(tensors)
    facts = ThoughtFacts(
        default_thought_budget=LONGEST_WORKING,
        trained_on=TRAINED_ON,
        example_prompt=EXAMPLE_PROMPT,
    )
    write_checkpoint(folder, model, load_tokenizer(trunk), facts, thought)


def _hidden(tensors: dict[str, Tensor]) -> int:
    return tensors["model.embed_tokens.weight"].shape[1]
