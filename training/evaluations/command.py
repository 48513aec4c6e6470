"""`python -m training evaluate`: from its options to a results folder."""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from quietstar_infer.config import QuietStarConfig, load_tokenizer
from training.beginning import beginning_ids
from training.config import Beginning
from training.errors import UsageError
from training.evaluations.backends.base import Backend
from training.evaluations.backends.http import served_by
from training.evaluations.backends.local import LocalBackend
from training.evaluations.control_gain import beside_control
from training.evaluations.cost_plot import draw_costs
from training.evaluations.evaluated_model import (
    identity,
    load_evaluated_gate,
    load_for_evaluation,
)
from training.evaluations.heat_map import write_heat_map
from training.evaluations.plots import draw_sweeps
from training.evaluations.record import REPORT, RESULTS, Record
from training.evaluations.report import measures_table, report_markdown
from training.evaluations.runner import (
    BASE,
    CONTROL_ROLE,
    THINKER,
    AskedTask,
    EvaluatedBackend,
    Limits,
    check_rows,
    evaluate,
)
from training.evaluations.summary import task_summary
from training.evaluations.sweep import Cell, drawn_cell, sweep_cells
from training.evaluations.tasks.definitions import load_task
from training.evaluations.tasks.prompts import PromptFormat
from training.evaluations.tasks.rows import load_rows
from training.output import write_json
from training.thoughts.decode import ThoughtSettings
from training.thoughts.loading import has_thought_parts, local_folder

_ROLES = (THINKER, BASE, CONTROL_ROLE)


def run_evaluation(options: argparse.Namespace) -> None:
    """Evaluate what has no result yet, then write results, report, plots and heat maps."""
    # No warnings for texts longer than the tokenizer's `model_max_length`: they are cut, or
    # refused.
    logging.set_verbosity_error()
    tasks = list(_load_tasks(options))
    thoughts = ThoughtSettings(
        tuple(sorted({0, *options.budgets})),
        options.thought_temperature,
        options.seed,
        tuple(sorted(set(options.threshold))),
    )
    limits = Limits(options.batch_size, options.document_tokens, options.heat_maps)
    folder = local_folder(options.model)
    _check_thoughts(thoughts, folder, options.model)
    with ExitStack() as stack:
        models = [_thinker(options, folder, thoughts, stack)]
        if options.base is not None:
            models.append(_without_thoughts(BASE, options.base, options))
        if options.control is not None:
            models.append(_without_thoughts(CONTROL_ROLE, options.control, options))
        for model in models:
            for task in tasks:
                check_rows(task, model, limits)
        run = _run_facts(options, folder, thoughts, tasks, models)
        record = Record(options.out, run, resume=options.resume)
        stack.callback(record.close)
        for model in models:
            for task in tasks:
                evaluate(task, model, limits, options.seed, record)
    results = _results(run, record, tasks, models)
    print(measures_table(results))
    for path in _write(results, record, options.out):
        print(f"written to {path}")


def _check_thoughts(thoughts: ThoughtSettings, folder: Path, name: str) -> None:
    """Raise `UsageError` for thoughts of a model that has learned none, and for a threshold without
    thoughts that it could decide about.
    """
    has_thresholds = any(thoughts.thresholds)
    if not has_thought_parts(folder) and (thoughts.longest or has_thresholds):
        wanted = (
            "--threshold is for Quiet-STaR checkpoints"
            if has_thresholds
            else "add --budgets 0 to measure it without"
        )
        raise UsageError(f"{name} is a plain base model, which has learned no thoughts: {wanted}")
    if has_thresholds and not thoughts.longest:
        raise UsageError("--threshold decides about thoughts: give --budgets above 0, too")


def _load_tasks(options: argparse.Namespace) -> Iterator[AskedTask]:
    elsewhere = dict(options.data)
    for name in options.tasks:
        title, task = load_task(name, elsewhere.pop(name, None))
        rows = load_rows(task, options.limit, options.few_shot)
        form = PromptFormat(options.beginning, rows.examples, options.chat)
        yield AskedTask(title, task, rows.asked, form)
    if elsewhere:
        raise UsageError(f"--data names {next(iter(elsewhere))}, which is not among --tasks")


def _thinker(
    options: argparse.Namespace, folder: Path, thoughts: ThoughtSettings, stack: ExitStack
) -> EvaluatedBackend:
    """The thinker, behind the chosen backend."""
    cells = sweep_cells(thoughts.budgets, thoughts.thresholds)
    if options.url is not None:
        served = stack.enter_context(served_by(options.url, thoughts, options.served_model))
        return EvaluatedBackend(THINKER, served, load_tokenizer(folder), cells)
    thinker, tokenizer = load_for_evaluation(
        folder, options.thought_embeddings, options.device, options.dtype
    )
    gate = load_evaluated_gate(folder, thinker)
    backend: Backend = LocalBackend(thinker, tokenizer, thoughts, gate)
    return EvaluatedBackend(THINKER, backend, tokenizer, cells)


def _without_thoughts(role: str, source: str, options: argparse.Namespace) -> EvaluatedBackend:
    """A model that is compared with, which does not think, in this process."""
    folder = local_folder(source)
    model, tokenizer = load_for_evaluation(folder, None, options.device, options.dtype)
    thoughts = ThoughtSettings((0,), seed=options.seed)
    backend = LocalBackend(model, tokenizer, thoughts)
    return EvaluatedBackend(role, backend, tokenizer, (Cell(0),))


def _run_facts(
    options: argparse.Namespace,
    folder: Path,
    thoughts: ThoughtSettings,
    tasks: Sequence[AskedTask],
    models: Sequence[EvaluatedBackend],
) -> dict[str, Any]:
    """Everything that is needed to repeat the evaluation."""
    base, control = (
        source and identity(local_folder(source), source)
        for source in (options.base, options.control)
    )
    return {
        "about": "An evaluation of thoughts; docs/evaluation.md explains it",
        "command": shlex.join(["python", "-m", "training", *sys.argv[1:]]),
        "model": identity(folder, options.model),
        "base": base,
        "control": control,
        "thought_embeddings": options.thought_embeddings,
        "budgets": list(thoughts.budgets),
        "thresholds": list(thoughts.thresholds),
        "gate": _gate_kind(folder) if any(thoughts.thresholds) else None,
        "temperature": thoughts.temperature,
        "seed": thoughts.seed,
        "beginning": _beginning(options.beginning, models[0].tokenizer),
        "document_tokens": options.document_tokens,
        "heat_maps": options.heat_maps,
        "batch_size": options.batch_size,
        "definitions": {one.name: asdict(one.task) for one in tasks},
        "rows": {one.name: _digest(one.rows) for one in tasks},
        "few_shot": options.few_shot,
        "examples": {one.name: one.form.examples for one in tasks if one.form.examples},
        "chat": options.chat,
        "through": "in process" if options.url is None else "server",
        "route": models[0].backend.describe(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("quietstar", "torch", "transformers", "datasets")},
        },
    }


def _beginning(rule: Beginning, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What stands before every text: by which rule, and the tokens."""
    ids = beginning_ids(tokenizer, rule)
    return {"rule": rule, "tokens": tokenizer.convert_ids_to_tokens(ids)}


def _gate_kind(folder: Path) -> str:
    """What estimates the expected gain of thoughts."""
    return "entropy" if QuietStarConfig.from_checkpoint(folder).gate is None else "learned"


def _digest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The number of rows, and a hash of their content."""
    text = "\n".join(json.dumps(row, sort_keys=True, default=str) for row in rows)
    return {"number": len(rows), "sha256": sha256(text.encode()).hexdigest()}


def _results(
    run: dict[str, Any],
    record: Record,
    tasks: Sequence[AskedTask],
    models: Sequence[EvaluatedBackend],
) -> dict[str, Any]:
    found = {
        one.name: {
            "kind": one.task.kind,
            "items": len(one.rows),
            **{
                model.role: task_summary(
                    one.task.kind, record.of(model.role, one.name), model.cells
                )
                for model in models
            },
        }
        for one in tasks
    }
    for one in tasks if run["control"] else ():
        if one.task.kind == "text":
            records = {
                role: record.of(role, one.name) for role in found[one.name] if role in _ROLES
            }
            found[one.name]["beside_control"] = beside_control(records, models[0].cells)
    return {**run, "tasks": found}


def _write(results: dict[str, Any], record: Record, folder: Path) -> Iterator[Path]:
    """Write everything that is made from the record; yields the paths."""
    write_json(folder / RESULTS, results)
    files = draw_sweeps(results, folder)
    files += draw_costs(results, folder)
    drawn = drawn_cell(sweep_cells(results["budgets"], results["thresholds"]))
    for name, task in results["tasks"].items():
        items = record.of(THINKER, name)[: results["heat_maps"]] if task["kind"] == "text" else []
        for number, item in enumerate(items if drawn.budget else ()):
            files.append(folder / f"heat-map-{name}-{number}.html")
            write_heat_map(item, drawn, f"{name}, document {number}", files[-1])
    (folder / REPORT).write_text(
        report_markdown(results, [file.name for file in files]), encoding="utf-8"
    )
    yield from (folder / RESULTS, folder / REPORT, *files)
