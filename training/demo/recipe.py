"""Recipes of the demonstration: everything that decides what is trained and measured."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from training.demo.base_model import BaseModelConfig, BaseModelTraining
from training.demo.corpus.problems import LONGEST_WORKING
from training.demo.forced_thoughts import Evaluation
from training.gate.settings import GateSettings
from training.trainer.recipe import Recipe, load_recipe

LESSON = Path(__file__).parents[2] / "recipes" / "demo.yaml"


@dataclass(frozen=True)
class BaseModelRecipe:
    """The base model, its tokenizer, and how it is measured."""

    model: BaseModelConfig = field(default_factory=BaseModelConfig)
    training: BaseModelTraining = field(default_factory=BaseModelTraining)
    tokenizer_documents: int = 20_000
    evaluation: Evaluation = field(default_factory=Evaluation)


@dataclass(frozen=True)
class DemoRecipe:
    """The base model, and the training runs and measurements of its thinkers.

    The model of the first seed is the one that is kept. Losses are measured on `documents` solved
    problems per family, the course of a training run on `watched`, at each of its evaluations. The
    gate is fitted to `gate.documents` documents; its thresholds are chosen, and it is measured, on
    `gate_held_out` solved held-out problems.
    """

    base_model: BaseModelRecipe = field(default_factory=BaseModelRecipe)
    lesson: Recipe = field(default_factory=lambda: load_recipe(LESSON))
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluation: Evaluation = field(default_factory=Evaluation)
    documents: int = 100
    watched: int = 10
    gate: GateSettings = field(
        default_factory=lambda: GateSettings(budgets=(1, 2, 4, 8, LONGEST_WORKING), documents=5000)
    )
    gate_held_out: int = 1500


def quick(recipe: DemoRecipe) -> DemoRecipe:
    """The recipe in a size that runs everything once, for a trial and for tests."""
    base, lesson = recipe.base_model, recipe.lesson
    return replace(
        recipe,
        base_model=replace(
            base,
            training=replace(base.training, steps=20, documents_per_step=8),
            tokenizer_documents=2000,
            evaluation=replace(base.evaluation, problems=5),
        ),
        lesson=replace(
            lesson,
            data=replace(lesson.data, eval_documents=2),
            optimisation=replace(lesson.optimisation, sequences_per_step=2),
            run=replace(lesson.run, steps=2, eval_every=1, sequences_per_device=2),
        ),
        seeds=recipe.seeds[:2],
        evaluation=replace(recipe.evaluation, problems=5, budgets=(0, LONGEST_WORKING)),
        documents=2,
        watched=1,
        gate=GateSettings(budgets=(2, LONGEST_WORKING), documents=20, epochs=2),
        gate_held_out=10,
    )
