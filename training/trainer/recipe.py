"""Recipes: everything that decides what a training run does, in one YAML file.

model: {source: mistralai/Mistral-7B-v0.1}
data: {path: texts.jsonl}
run: {output: runs/first, steps: 100}
preset: official              # fills in what the next three sections leave out
thinking: {budget: 5}         # training.config.Thinking
objective: {}                 # training.config.Objective
optimisation: {}              # training.config.Optimisation
control: true                 # the same run without thoughts as well, into the folder `control`
gate: {}                      # training.gate.settings.GateSettings; without it no gate is fitted
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from training.config import (
    PRESETS,
    Beginning,
    Objective,
    Optimisation,
    Preset,
    Recompute,
    Thinking,
)
from training.errors import UsageError
from training.gate.settings import GateSettings

ExportDtype: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Lora:
    """Train low-rank updates of the base model's linear layers instead of all its weights (peft's
    LoRA).
    """

    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True)
class ModelConfig:
    """`source` is a plain base model or a Quiet-STaR checkpoint: a folder or a name on the hub."""

    source: str
    lora: Lora | None = None


@dataclass(frozen=True)
class DataConfig:
    """A data set of `datasets`: a `.jsonl`, `.json`, `.csv`, `.parquet` or `.txt` file (a document
    per line), which may be compressed (`.jsonl.gz` …), a folder, or a name on the hub, with its
    configuration `name`.

    `packed` joins documents and cuts them into windows, in which each sees itself only, as if it
    stood alone; in `joined` windows a document sees those before it. `window` takes one random
    window of each document, or all of a short one, as the official code does; a batch is padded to
    its longest piece. `beginning` chooses what stands before a document. Without `eval_path` and
    `eval_split` the first `eval_documents` documents are set aside for evaluation. `title` replaces
    `path` in the exported model's description of its data.

    `column` holds text, or the messages of a chat, each with `role` and `content`, which the
    tokenizer's chat template writes. The text of `prompt_column` stands before that of `column`.
    `answers_only`: of chats only what the assistant says is learnt, of text only `column`.
    """

    path: str
    title: str | None = None
    name: str | None = None
    split: str = "train"
    column: str = "text"
    prompt_column: str | None = None
    answers_only: bool = False
    eval_path: str | None = None
    eval_split: str | None = None
    eval_documents: int = 64
    pieces: Literal["packed", "joined", "window"] = "packed"
    beginning: Beginning = "tokenizer"
    end_of_text: bool = True
    streaming: bool = False
    shuffle_buffer: int = 1000


@dataclass(frozen=True)
class RunConfig:
    """The length of a run, its evaluations and checkpoints, and its output folder.

    A checkpoint is written at every evaluation; `keep` of them stay, the best and the latest always
    among them. `recompute` chooses the activation checkpointing. A run stops as collapsed where
    `collapse_patience` evaluations in a row show thoughts of less than `collapse_entropy` nats per
    token, or with more than a share of `collapse_repeated` of tokens that repeat the one before.
    `report_to` names loggers of transformers' beside TensorBoard
    (`training.trainer.callbacks.loggers`).
    """

    output: Path
    steps: int = 100
    sequences_per_device: int = 8
    eval_every: int = 10
    log_every: int = 1
    keep: int = 2
    seed: int = 0
    bf16: bool = False
    recompute: Recompute = "mlp"
    sample_thoughts: int = 8
    export_dtype: ExportDtype = "float32"
    collapse_entropy: float = 0.01
    collapse_repeated: float = 0.99
    collapse_patience: int = 3
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = ("steps", "sequences_per_device", "eval_every", "log_every", "keep")
        for name in (*counts, "collapse_patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected 1 or more")


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `load_recipe` checks it."""

    model: ModelConfig
    data: DataConfig
    run: RunConfig
    thinking: Thinking
    objective: Objective
    optimisation: Optimisation
    preset: Literal["official", "paper", "recommended", "pretrained"] = "official"
    control: bool = False
    gate: GateSettings | None = None

    def __post_init__(self) -> None:
        if self.gate is not None:
            self.gate.gate_config(self.gate.budgets or (self.thinking.budget,))

    @property
    def settings(self) -> Preset:
        """The settings of one training step."""
        return Preset(self.thinking, self.objective, self.optimisation)


_OF_NO_EFFECT = (
    "preset",  # only a name: what it fills in is compared
    "control",  # a run of its own
    "gate",  # fitted at the end
    "data.title",
    "optimisation.decay_steps",  # `rates_end`
    "run.output",
    "run.steps",
    "run.eval_every",
    "run.log_every",
    "run.keep",
    "run.recompute",
    "run.sample_thoughts",
    "run.export_dtype",
    "run.collapse_entropy",
    "run.collapse_repeated",
    "run.collapse_patience",
    "run.report_to",
)
"""Keys and sections that may change between the parts of a run: they decide what is written down,
and when a run ends, but no number (`recompute`: but for rounding)."""


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe; an override is `section.key=value`, its value in YAML.

    Raises `UsageError`, one line, for a file that is no recipe and for an unknown, missing or
    unsuitable key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} should hold sections: model, data, run")
    for override in overrides:
        _override(content, override)
    return make_recipe(content, str(path))


def make_recipe(content: Mapping[str, Any], where: str) -> Recipe:
    """A checked recipe from nested mappings; raises `UsageError`."""
    _check_keys(Recipe, content, where)
    name = content.get("preset", "official")
    if name not in PRESETS:
        raise UsageError(f"{where}: preset is {name!r}, expected {', '.join(PRESETS)}")
    sections = {
        section: {**values, **(content.get(section) or {})}
        for section, values in asdict(PRESETS[name]).items()
    }
    try:
        return TypeAdapter(Recipe).validate_python({**content, **sections})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {key}: {first['msg']}") from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with every key, so that `load_recipe` gives an equal one."""
    content = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def first_difference(one: Recipe, other: Recipe) -> str | None:
    """The first key in which two recipes differ, of those that decide a run's numbers; the schedule
    of the learning rates is compared by `rates_end`.
    """
    for section, values in asdict(one).items():
        others = asdict(other)[section]
        if section in _OF_NO_EFFECT or values == others:
            continue
        if not isinstance(values, dict) or not isinstance(others, dict):
            return section
        for key, value in values.items():
            name = f"{section}.{key}"
            if value != others[key] and name not in _OF_NO_EFFECT:
                return name
    return None


def rates_end(recipe: Recipe) -> int | None:
    """The step at which the learning rates reach 0; None for a constant schedule."""
    settings = recipe.optimisation
    if settings.schedule == "constant":
        return None
    return settings.decay_steps or recipe.run.steps


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise UsageError(f"--set {override}: expected section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {override}: {section} is not a section")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {override}: {value!r} is not valid YAML") from None


def _check_keys(kind: Any, content: Any, where: str) -> None:
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} is {content!r}, expected keys such as {known[0]}")
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            expected = f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"
            raise UsageError(f"{where}: unknown key {key!r}; {expected}")
        nested = [t for t in (hints[key], *get_args(hints[key])) if is_dataclass(t)]
        if nested and value is not None:
            _check_keys(nested[0], value, f"{where}: {key}")
