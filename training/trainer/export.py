"""From a run to a checkpoint that `python -m server` serves and the official code loads."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from huggingface_hub import save_torch_state_dict
from transformers import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import GENERATION_CONFIG_NAME

from quietstar_infer.checkpoint import check_checkpoint
from training.errors import UsageError
from training.output import write_json
from training.thoughts.adapter import write_adapter
from training.trainer.build import build
from training.trainer.checkpoint import OFFICIAL_FLAGS, ThoughtFacts, write_tokenizer
from training.trainer.control import gains_table, run_gains, verdict
from training.trainer.recipe import ExportDtype, Recipe, load_recipe

RECIPE = "recipe.yaml"
MODEL = "model"
ADAPTER = "adapter"
CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [quiet-star]
base_model: {source}
---

# {source}, thinking quietly

A Quiet-STaR checkpoint in the official layout. It was trained from `{source}` on {trained_on}
with thoughts of {budget} sampled tokens; this is step {step} of {steps}.
`python -m server FOLDER` serves it.

Losses are in nats per token of the evaluation text: `base_nll` without thoughts, `nll` with them;
`gain` is the difference.

{table}
{gains}
## Recipe

```yaml
{recipe}```
"""
COLUMNS = ("base_nll", "nll", "gain", "mixing_weight", "thought_entropy", "thought_repeated")


class Chosen(NamedTuple):
    """The checkpoint of a run that is exported, and the run's evaluations, in their order."""

    folder: Path
    step: int
    evaluations: list[Mapping[str, float]]


def export_run(run: Path, dtype: ExportDtype | None = None) -> Path:
    """Write the best checkpoint of a run to its folder `model`, and what LoRA has trained of it to
    `adapter`; both are replaced. Returns the model. `dtype`: of its weights, None = the recipe's.

    Raises `UsageError` where there is no run, or no checkpoint in it.
    """
    recipe = load_recipe(run / RECIPE)
    chosen = choose_checkpoint(run)
    built = build(recipe)
    built.model.load_weights(chosen.folder)
    if built.tuner is not None:
        shutil.rmtree(run / ADAPTER, ignore_errors=True)
        write_adapter(built.tuner, built.model.thinker, recipe.model.source, run / ADAPTER)
        built.tuner.merge_and_unload()
    thinker = built.model.thinker
    former = thinker.base_model.config.to_dict().get("quiet_star", {})
    facts = ThoughtFacts(
        recipe.thinking.budget,
        trained_on=recipe.data.title or recipe.data.path,
        example_prompt=former.get("example_prompt"),
    )
    writing = run / f".{MODEL}"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    dtype = dtype or recipe.run.export_dtype
    tensors = {name: t.to(getattr(torch, dtype)) for name, t in thinker.official_tensors().items()}
    save_torch_state_dict(tensors, writing)
    for weights in writing.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes it private; a server may run as another user
    write_json(writing / "config.json", config_json(thinker.base_model, facts, dtype))
    # As it came, also where transformers would refuse to save it.
    thinker.base_model.generation_config.to_json_file(writing / GENERATION_CONFIG_NAME)
    write_tokenizer(built.tokenizer, writing)
    (writing / "README.md").write_text(model_card(recipe, chosen), encoding="utf-8")
    check_checkpoint(writing)
    shutil.rmtree(run / MODEL, ignore_errors=True)
    return writing.rename(run / MODEL)


def choose_checkpoint(run: Path) -> Chosen:
    """The checkpoint with the lowest `nll`, or the last one where none was evaluated."""
    last = get_last_checkpoint(str(run))
    if last is None:
        raise UsageError(f"{run} has no checkpoint to export")
    state = json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
    folder = run / Path(state["best_model_checkpoint"] or last).name
    evaluations = [entry for entry in state["log_history"] if "eval_nll" in entry]
    return Chosen(folder, int(folder.name.rpartition("-")[2]), evaluations)


def config_json(base_model: PreTrainedModel, facts: ThoughtFacts, dtype: str) -> dict[str, Any]:
    """`config.json`: the base model's own with the official flags; two keys also by their older
    names, which the official code's transformers 4.37 reads.
    """
    config = base_model.config.to_diff_dict()
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "default":
        config["rope_theta"] = rope["rope_theta"]
    return {
        **config,
        **OFFICIAL_FLAGS,
        "architectures": [type(base_model).__name__],
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
        "max_thoughts": facts.max_thoughts,
        "quiet_star": facts.section(),
    }


def _gains(recipe: Recipe, run: Path) -> str:
    """What thoughts gained beside what training alone did."""
    if not recipe.thinking.budget:
        return ""
    if not recipe.control:
        return (
            "\nWhat training alone would have gained is not known: the run has no control "
            "(`control: true`).\n"
        )
    try:
        gains = [run_gains(run)]
    except UsageError:  # a run that did not end: its control comes last
        return "\nThe run's control has not been trained.\n"
    return f"\n## Beside its control\n\n{gains_table(gains)}\n\n{verdict(gains)}\n"


def model_card(recipe: Recipe, chosen: Chosen) -> str:
    """The model card in Markdown, with the run's numbers."""
    head = f"| step | {' | '.join(COLUMNS)} |\n|--:|{'--:|' * len(COLUMNS)}\n"
    rows = [
        f"| {entry['step']:.0f} | "
        + " | ".join(f"{entry[f'eval_{name}']:.4f}" for name in COLUMNS)
        + " |"
        for entry in chosen.evaluations
    ]
    content = {name: section for name, section in asdict(recipe).items() if name != "run"}
    return CARD.format(
        source=recipe.model.source,
        trained_on=recipe.data.title or recipe.data.path,
        budget=recipe.thinking.budget,
        steps=recipe.run.steps,
        step=chosen.step,
        table=head + "\n".join(rows),
        gains=_gains(recipe, chosen.folder.parent),
        recipe=yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False),
    )
