"""The demonstration model, trained: base model, thinkers and controls of several seeds, all
measured.
"""

import itertools
import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from quietstar_infer.checkpoint import GATE_FILE
from quietstar_infer.config import load_tokenizer
from training.demo.adaptive.measurement import measure_adaptive
from training.demo.base_model_build import build_base_model
from training.demo.card import thinker_card
from training.demo.corpus.documents import documents_without_asides, solved_held_out
from training.demo.measure import Course, measure_thinker, measure_without_thoughts
from training.demo.recipe import DemoRecipe
from training.demo.report import Results, write_results
from training.gate.command import GateJob, run_gate
from training.thoughts.model import QuietThinker
from training.trainer.recipe import DataConfig, Recipe
from training.trainer.run import train

FIRST_DOCUMENTS = 1000
"""The corpus seed of lesson 0; the base model was trained on those of the small seeds."""
GATE_DOCUMENTS = 2000
"""The corpus seed of what the gate is fitted to and measured on."""


def build_demo_model(
    recipe: DemoRecipe, folder: Path, base_model: Path | None, workers: int
) -> Results:
    """Make the demonstration model in `folder`, from a base model or from nothing, with its model
    card and `results.json`. Intermediate results are in `folder/work` until the end.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    if base_model is None:
        base_model = work / "base-model"
        build_base_model(recipe.base_model, base_model)
    lessons = [lesson_for(recipe.lesson, base_model, work, seed) for seed in recipe.seeds]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        taught = [pool.submit(teach, recipe, lesson) for lesson in lessons]
        controls = [pool.submit(teach_control, recipe, lesson) for lesson in lessons]
        at_once = pool.submit(measure_without_thoughts, recipe, base_model)
        results = {
            "problems": recipe.evaluation.problems,
            "seeds": list(recipe.seeds),
            "steps": recipe.lesson.run.steps,
            "trunk": at_once.result(),
            "controls": [each.result() for each in controls],
            "thinkers": [each.result() for each in taught],
        }
    (folder / GATE_FILE).unlink(missing_ok=True)  # of a former model
    shutil.copytree(exported(lessons[0]), folder, dirs_exist_ok=True)
    shutil.rmtree(work)
    return gate_demo_model(recipe, folder, results)


def gate_demo_model(recipe: DemoRecipe, folder: Path, results: Results) -> Results:
    """Fit the gate of the demonstration model in `folder`, measure what it does, and write
    `results.json` and the model card with that; the results with it.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        data = gate_data(recipe, Path(scratch))
        job = GateJob(folder, data, recipe.gate, Path(scratch), replace=True, device="cpu")
        gate = run_gate(job)
    results = results | {"gate": gate, "adaptive": measure_adaptive(folder, recipe.evaluation)}
    write_results(results, folder)
    (folder / "README.md").write_text(thinker_card(results), encoding="utf-8")
    return results


def gate_data(recipe: DemoRecipe, folder: Path) -> DataConfig:
    """Writes what the gate is fitted to, and what it is measured on."""
    fitted, held_out = folder / "documents.txt", folder / "held-out.txt"
    for file, texts, number in (
        (fitted, documents_without_asides(GATE_DOCUMENTS), recipe.gate.documents),
        (held_out, solved_held_out(GATE_DOCUMENTS), recipe.gate_held_out),
    ):
        lines = (f"{text}\n" for text in itertools.islice(texts, number))
        file.write_text("".join(lines), encoding="utf-8")
    return DataConfig(path=str(fitted), title=recipe.lesson.data.title, eval_path=str(held_out))


def lesson_for(lesson: Recipe, base_model: Path, work: Path, seed: int) -> Recipe:
    """The recipe for one seed; writes its documents."""
    run = lesson.run
    number = run.steps * lesson.optimisation.sequences_per_step + lesson.data.eval_documents
    texts = itertools.islice(documents_without_asides(FIRST_DOCUMENTS + seed), number)
    work.mkdir(exist_ok=True)
    file = work / f"lesson-{seed}.txt"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return replace(
        lesson,
        model=replace(lesson.model, source=str(base_model)),
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
    """The folder of a run's exported model."""
    return lesson.run.output / "model"


def teach(recipe: DemoRecipe, lesson: Recipe) -> Results:
    """Train one thinker, and measure it."""
    torch.set_num_threads(1)  # the same seed then gives the same weights
    base_model = Path(lesson.model.source)
    tokenizer = load_tokenizer(base_model)
    course = Course(recipe, base_model, tokenizer)
    folder = train(lesson, callbacks=[course])
    measured = measure_thinker(recipe, QuietThinker.from_checkpoint(folder), base_model, tokenizer)
    return measured | {"course": course.measured}


def teach_control(recipe: DemoRecipe, lesson: Recipe) -> Results:
    """Train a control on the same documents without thoughts; its accuracy."""
    torch.set_num_threads(1)
    return measure_without_thoughts(recipe, train(without_thoughts(lesson)))
