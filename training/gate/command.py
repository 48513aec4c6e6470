"""Fits a gate to a checkpoint, from its data to the written gate and its report."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import QuietStarConfig
from training.errors import UsageError
from training.evaluations.evaluated_model import load_for_evaluation
from training.gate.fit import fit_gate
from training.gate.gate_files import check_gate_place, write_gate
from training.gate.gate_plot import draw_gate
from training.gate.labels import label_positions
from training.gate.report import GateResults, gate_report, gate_results
from training.gate.settings import FEWEST_DOCUMENTS, HELD_OUT_EVERY, GateSettings
from training.output import write_json
from training.thoughts.decode import ThoughtSettings
from training.trainer.data import load_text
from training.trainer.documents import document_reader
from training.trainer.recipe import DataConfig


@dataclass(frozen=True)
class GateJob:
    """A checkpoint's folder, what its gate is fitted to, and the folder of the report. `replace`:
    fit it anew where the checkpoint has one. `device` None is a GPU where there is one.
    """

    folder: Path
    data: DataConfig
    settings: GateSettings
    report: Path
    replace: bool = False
    device: str | None = None
    dtype: str = "float32"


def run_gate(job: GateJob) -> GateResults:
    """Fit, report, and write the gate into the checkpoint. Raises `UsageError` and
    `CheckpointError`; the checkpoint is then as it was.
    """
    check_gate_place(job.folder, replace=job.replace)
    default_budget = QuietStarConfig.from_checkpoint(job.folder).default_thought_budget
    config = job.settings.gate_config(job.settings.budgets or (default_budget,))
    job.report.mkdir(parents=True, exist_ok=True)
    thinker, tokenizer = load_for_evaluation(job.folder, None, job.device, job.dtype)
    fitted, held_out = read_split(job.data, tokenizer, job.settings)
    print(
        f"{len(fitted)} documents, {len(held_out)} held out, thoughts of "
        f"{', '.join(map(str, config.budgets))} tokens",
        file=sys.stderr,
    )
    thoughts = ThoughtSettings(config.budgets, seed=job.settings.seed)
    positions = label_positions(thinker, fitted, thoughts)
    unseen = label_positions(thinker, held_out, thoughts)
    with torch.random.fork_rng(devices=[]):
        gate = fit_gate(positions, config.budgets, job.settings)
    budget = default_budget if default_budget in config.budgets else config.budgets[-1]
    thresholds, measured = gate_results(gate, config, unseen, budget)
    results = {
        "checkpoint": job.folder.resolve().name,
        "data": job.data.title or job.data.path,
        "documents": len(fitted),
        "positions": len(positions),
        "held_out_documents": len(held_out),
        **measured,
    }
    write_json(job.report / "gate.json", results)
    draw_gate(results, job.report / "gate.svg")
    (job.report / "gate.md").write_text(gate_report(results), encoding="utf-8")
    write_gate(job.folder, gate, config, thresholds)
    return results


def read_split(
    data: DataConfig, tokenizer: PreTrainedTokenizerBase, settings: GateSettings
) -> tuple[list[list[int]], list[list[int]]]:
    """The documents that a gate is fitted to, and those that are held out for its report and its
    thresholds: of `eval_path` or `eval_split`, else one in `HELD_OUT_EVERY`. Raises `UsageError`
    where there are too few.
    """
    documents = _read(data, data.path, data.split, tokenizer, settings)
    if len(documents) < FEWEST_DOCUMENTS:
        raise UsageError(
            f"{data.path} has {len(documents)} documents of two tokens or more, at least "
            f"{FEWEST_DOCUMENTS} are needed"
        )
    if data.eval_path or data.eval_split:
        path, split = data.eval_path or data.path, data.eval_split or "train"
        held_out = _read(data, path, split, tokenizer, settings)
        if not held_out:
            raise UsageError(f"{path} has no document of two tokens or more to hold out")
        return documents, held_out
    fitted = [ids for number, ids in enumerate(documents) if number % HELD_OUT_EVERY]
    return fitted, documents[::HELD_OUT_EVERY]


def _read(
    data: DataConfig,
    path: str,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: GateSettings,
) -> list[list[int]]:
    """The first documents that have two tokens or more, cut, as token ids."""
    read = document_reader(replace(data, path=path, answers_only=False), tokenizer)
    found = []
    for number, row in enumerate(load_text(data, path, split).take(settings.documents)):
        (document,) = read({name: [value] for name, value in row.items()}, [number])
        ids = document.ids
        if len(ids) >= 2:
            found.append(ids[: settings.document_tokens])
    return found
