"""The demonstration model, taught: trunk, thinkers and controls of several seeds, all measured."""

import itertools
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
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
from training.trainer.build import ThinkingStep
from training.demo.card import thinker_card
from training.demo.corpus.documents import FAMILIES, documents_without_asides
from training.demo.base_model_build import DemoRecipe, build_demo
from training.demo.forced_thoughts import Evaluation
from training.thoughts.model import QuietThinker
from training.demo.corpus.problems import LONGEST_WORKING, Problem
from training.demo.accuracy import (
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
from training.trainer.recipe import Recipe, load_recipe
from training.demo.report import WEIGHT_BINS, Results
from training.trainer.run import train

LESSON = Path(__file__).parents[1] / "recipes" / "demo.yaml"
FIRST_DOCUMENTS = 1000
"""The corpus seed of lesson 0; the trunk has read those of the small seeds."""
TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}
RESULTS = "results.json"


@dataclass(frozen=True)
class DemoModelRecipe:
    """Everything that decides what is taught and measured.

    The model of the first seed is the one that is kept. Losses are measured on `documents` solved
    problems per family, the course of a lesson on `watched`, at each of its evaluations.
    """

    trunk: DemoRecipe = field(default_factory=DemoRecipe)
    lesson: Recipe = field(default_factory=lambda: load_recipe(LESSON))
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluation: Evaluation = field(default_factory=Evaluation)
    documents: int = 100
    watched: int = 10


def build_demo_model(
    recipe: DemoModelRecipe, folder: Path, trunk: Path | None, workers: int
) -> Results:
    """Make the demonstration model in `folder`, from a trunk or from nothing, with its model card
    and `results.json`. What is made on the way lies in `folder/work` until the end.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    if trunk is None:
        trunk = work / "trunk"
        build_demo(recipe.trunk, trunk)
    lessons = [lesson_for(recipe.lesson, trunk, work, seed) for seed in recipe.seeds]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        taught = [pool.submit(teach, recipe, lesson) for lesson in lessons]
        controls = [pool.submit(teach_control, recipe, lesson) for lesson in lessons]
        at_once = pool.submit(measure_plain, recipe, trunk)
        results = {
            "problems": recipe.evaluation.problems,
            "seeds": list(recipe.seeds),
            "steps": recipe.lesson.run.steps,
            "trunk": at_once.result(),
            "controls": [each.result() for each in controls],
            "thinkers": [each.result() for each in taught],
        }
    shutil.copytree(exported(lessons[0]), folder, dirs_exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(thinker_card(results), encoding="utf-8")
    shutil.rmtree(work)
    return results


def lesson_for(lesson: Recipe, trunk: Path, work: Path, seed: int) -> Recipe:
    """The recipe for one seed, with documents of its own, which are written."""
    run = lesson.run
    number = run.steps * lesson.optimisation.sequences_per_step + lesson.data.eval_documents
    texts = itertools.islice(documents_without_asides(FIRST_DOCUMENTS + seed), number)
    work.mkdir(exist_ok=True)
    file = work / f"lesson-{seed}.txt"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return replace(
        lesson,
        model=replace(lesson.model, source=str(trunk)),
        data=replace(lesson.data, path=str(file)),
        run=replace(run, output=work / f"thinker-{seed}", seed=seed),
    )


def without_thoughts(lesson: Recipe) -> Recipe:
    """The control's recipe: the same documents, steps and rates."""
    return replace(
        lesson,
        thinking=replace(lesson.thinking, budget=0),
        objective=replace(lesson.objective, talk_weight=0.0, policy_weight=0.0),
        run=replace(lesson.run, output=lesson.run.output.with_name(f"control-{lesson.run.seed}")),
    )


def exported(lesson: Recipe) -> Path:
    """Where a run leaves its model."""
    return lesson.run.output / "model"


def teach(recipe: DemoModelRecipe, lesson: Recipe) -> Results:
    """Teach one thinker, and measure it."""
    torch.set_num_threads(1)  # the same seed then gives the same weights
    trunk = Path(lesson.model.source)
    tokenizer = load_tokenizer(trunk)
    course = Course(recipe, trunk, tokenizer)
    folder = train(lesson, callbacks=[course])
    measured = measure_thinker(recipe, QuietThinker.from_checkpoint(folder), trunk, tokenizer)
    return measured | {"course": course.seen}


def teach_control(recipe: DemoModelRecipe, lesson: Recipe) -> Results:
    """Let a control read on without thoughts; its accuracy."""
    torch.set_num_threads(1)
    return measure_plain(recipe, train(without_thoughts(lesson)))


def measure_plain(recipe: DemoModelRecipe, folder: Path) -> Results:
    """The accuracy of a model that answers at once."""
    torch.set_num_threads(1)
    thinker, tokenizer = QuietThinker.from_checkpoint(folder), load_tokenizer(folder)
    scores = quiet_scores(thinker, tokenizer, replace(recipe.evaluation, budgets=(0,)))
    return {family: by_budget[0].accuracy for family, by_budget in scores.items()}


class Course(TrainerCallback):
    """Watches a lesson: losses and mixing weights by kind of token, after sampled thoughts, at
    every evaluation.
    """

    def __init__(
        self, recipe: DemoModelRecipe, trunk: Path, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.recipe = recipe
        self.trunk = QuietThinker.from_checkpoint(trunk)
        self.tokenizer = tokenizer
        self.seen: list[Results] = []

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure."""
        model: ThinkingStep = kwargs["model"]
        facts = token_facts(
            model.thinker,
            self.trunk,
            solved(self.tokenizer, self.recipe.evaluation, self.recipe.watched),
            self.tokenizer.pad_token_id,
            LONGEST_WORKING,
            thoughts_at(1.0, self.recipe.evaluation.seed),
        )
        kinds = {kind: asdict(scores) for kind, scores in by_kind(facts).items()}
        self.seen.append({"step": state.global_step, "kinds": kinds})


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
