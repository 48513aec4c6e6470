"""What a Quiet-STaR checkpoint's files tell about thinking, read once and passed around."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quietstar_infer.errors import CheckpointError
from quietstar_infer.gate import GateConfig
from quietstar_infer.params import is_finite_from_zero

START_TOKEN = "<|startthought|>"
END_TOKEN = "<|endthought|>"
# Both meta-tokens start their training as the embedding of this text's first token.
DASH = "---"
# The meta-embeddings are stored divided by this: a learning-rate multiplier under Adam (official
# `embedding_scale`).
EMBEDDING_SCALE = 100.0
# Published checkpoints do not record their thought budget; "8 ahead", in their names, counts passes
# and means 5 sampled tokens.
FALLBACK_THOUGHT_BUDGET = 5

EmbeddingMode = Literal["learned", "reset"]
EMBEDDING_MODES: tuple[EmbeddingMode, ...] = get_args(EmbeddingMode)


@dataclass(frozen=True)
class EffortThresholds:
    """The thought thresholds, in nats, that a chat's `reasoning_effort` stands for; the defaults
    are those of checkpoints that name none.
    """

    low: float = 0.5
    medium: float = 0.1
    high: float = 0.02


@dataclass(frozen=True)
class QuietStarConfig:
    """The facts of one checkpoint that thinking needs.

    `embedding_mode`: what is fed for START and END; `learned`: the trained vectors; `reset`: the
    embedding of `---` for both, as in the published evaluation script. `dash_token_id` is None
    where the tokenizer has no dash. `gate`: of its thought gate, None where it has none.
    `default_thought_threshold`: of requests that name none, in nats; 0 = think before every token.
    """

    start_token_id: int
    end_token_id: int
    dash_token_id: int | None = None
    embedding_mode: EmbeddingMode = "learned"
    embedding_scale: float = EMBEDDING_SCALE
    default_thought_budget: int = FALLBACK_THOUGHT_BUDGET
    gate: GateConfig | None = None
    default_thought_threshold: float = 0.0
    effort_thresholds: EffortThresholds = EffortThresholds()

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "QuietStarConfig":
        """The inverse of `dataclasses.asdict`."""
        gate = fields["gate"] and GateConfig.from_fields(fields["gate"])
        efforts = EffortThresholds(**fields["effort_thresholds"])
        return cls(**{**fields, "gate": gate, "effort_thresholds": efforts})

    @classmethod
    def from_checkpoint(
        cls, folder: Path, embedding_mode: EmbeddingMode | None = None
    ) -> "QuietStarConfig":
        """Read `config.json` and the tokenizer of a local checkpoint.

        `embedding_mode` overrules the checkpoint's own. Raises `CheckpointError` where the folder
        is not a Quiet-STaR checkpoint: no `config.json`, no tokenizer, a tokenizer without the
        meta-tokens, or a bad `quiet_star` section.
        """
        section = quiet_star_section(folder)
        tokenizer = load_tokenizer(folder)
        start_token_id, end_token_id = meta_token_ids(tokenizer, folder)
        config = cls(
            start_token_id=start_token_id,
            end_token_id=end_token_id,
            dash_token_id=next(iter(tokenizer.encode(DASH, add_special_tokens=False)), None),
            embedding_mode=embedding_mode or section.get("embedding_mode", "learned"),
            embedding_scale=section.get("embedding_scale", EMBEDDING_SCALE),
            default_thought_budget=section.get("default_thought_budget", FALLBACK_THOUGHT_BUDGET),
            gate=_gate(section, folder),
            default_thought_threshold=section.get("default_thought_threshold", 0.0),
            effort_thresholds=_effort_thresholds(section, folder),
        )
        config._check(folder)
        return config

    def _check(self, folder: Path) -> None:
        if self.embedding_mode not in EMBEDDING_MODES:
            raise CheckpointError(
                f"{folder}/config.json: quiet_star.embedding_mode is {self.embedding_mode!r}, "
                f"expected one of {', '.join(EMBEDDING_MODES)}"
            )
        if self.embedding_mode == "reset" and self.dash_token_id is None:
            raise CheckpointError(
                f"{folder}: the reset mode feeds the embedding of {DASH}, which the tokenizer "
                "does not know; use the learned mode"
            )
        if type(self.default_thought_budget) is not int or self.default_thought_budget < 0:
            raise CheckpointError(
                f"{folder}/config.json: quiet_star.default_thought_budget is "
                f"{self.default_thought_budget!r}, expected a whole number from 0 up"
            )
        if not is_finite_from_zero(self.embedding_scale) or self.embedding_scale == 0:
            raise CheckpointError(
                f"{folder}/config.json: quiet_star.embedding_scale is {self.embedding_scale!r}, "
                "expected a finite number above 0"
            )
        if not is_finite_from_zero(self.default_thought_threshold):
            raise CheckpointError(
                f"{folder}/config.json: quiet_star.default_thought_threshold is "
                f"{self.default_thought_threshold!r}, expected a finite number from 0 up, in nats"
            )

    @property
    def meta_token_ids(self) -> tuple[int, int]:
        """START's and END's token ids."""
        return self.start_token_id, self.end_token_id


def quiet_star_section(folder: Path) -> Mapping[str, Any]:
    """What a checkpoint's config.json says about thinking; raises `CheckpointError` where it is not
    an object.
    """
    section = read_json(folder / "config.json").get("quiet_star", {})
    if not isinstance(section, dict):
        raise CheckpointError(
            f"{folder}/config.json: quiet_star is {section!r}, expected an object of settings"
        )
    return section


def _gate(section: Mapping[str, Any], folder: Path) -> GateConfig | None:
    fields = section.get("gate")
    if fields is None:
        return None
    try:
        return GateConfig.from_fields(fields if isinstance(fields, dict) else {})
    except ValueError as error:
        raise CheckpointError(f"{folder}/config.json: quiet_star.gate: {error}") from None


def _effort_thresholds(section: Mapping[str, Any], folder: Path) -> EffortThresholds:
    fields = section.get("effort_thresholds", {})
    names = [field.name for field in dataclass_fields(EffortThresholds)]
    if (
        not isinstance(fields, dict)
        or not set(fields) <= set(names)
        or not all(is_finite_from_zero(value) for value in fields.values())
    ):
        raise CheckpointError(
            f"{folder}/config.json: quiet_star.effort_thresholds is {fields!r}, expected a number "
            f"from 0 up, in nats, for each of {', '.join(names)}"
        )
    return EffortThresholds(**fields)


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; raises `CheckpointError` where it is missing or not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold one JSON object")
    return content


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local checkpoint, or of a hub name (downloaded, or taken from the cache);
    raises `CheckpointError` where it cannot be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=isinstance(folder, Path)
        )
    # A broken file fails in many ways.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        if not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise CheckpointError(f"{folder} has no usable tokenizer: {reason}") from None
    return tokenizer


def meta_token_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[int, int]:
    """START's and END's ids, looked up by name: copies of the published checkpoint exist with the
    two ids swapped.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (START_TOKEN, END_TOKEN) if token not in vocabulary]
    if missing:
        raise CheckpointError(
            f"{folder} is not a Quiet-STaR checkpoint: its tokenizer lacks {' and '.join(missing)}"
        )
    return vocabulary[START_TOKEN], vocabulary[END_TOKEN]
