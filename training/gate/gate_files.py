"""Puts a thought gate into a checkpoint: its file, and its keys of config.json."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from quietstar_infer.checkpoint import GATE_FILE, GATE_PREFIX, check_checkpoint
from quietstar_infer.config import EffortThresholds, QuietStarConfig, read_json
from quietstar_infer.gate import GateConfig, ThoughtGate
from training.errors import UsageError
from training.output import write_json
from training.thoughts.loading import has_thought_parts

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Thresholds:
    """What a checkpoint says of its gate's thresholds, in nats."""

    default: float
    efforts: EffortThresholds


def check_gate_place(folder: Path, *, replace: bool) -> None:
    """Raise `UsageError` where no gate can be written: the folder holds no Quiet-STaR checkpoint,
    or one that has a gate already, and `replace` is off; `CheckpointError` where it is broken.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; a gate is written into a checkpoint's folder")
    read_json(folder / CONFIG_FILE)
    if not has_thought_parts(folder):
        raise UsageError(
            f"{folder} is not a Quiet-STaR checkpoint: it has no thoughts that a gate could "
            "skip; teach it to think first (python -m training train)"
        )
    check_checkpoint(folder)
    if QuietStarConfig.from_checkpoint(folder).gate is not None and not replace:
        raise UsageError(f"{folder} has a thought gate already; add --replace to fit it anew")
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != GATE_FILE and _has_gate_tensors(path):
            raise UsageError(
                f"{path} has a thought gate among other tensors; move it out of there first"
            )


def write_gate(folder: Path, gate: ThoughtGate, config: GateConfig, thresholds: Thresholds) -> None:
    """Write a gate's file, then its keys of config.json, each whole or not at all; nothing else of
    the checkpoint changes.
    """
    tensors = {
        GATE_PREFIX + name: tensor.contiguous() for name, tensor in gate.state_dict().items()
    }
    content = dict(read_json(folder / CONFIG_FILE))
    content["quiet_star"] = {
        **content.get("quiet_star", {}),
        "gate": json.loads(json.dumps(asdict(config))),
        "default_thought_threshold": thresholds.default,
        "effort_thresholds": asdict(thresholds.efforts),
    }
    _replace(folder / GATE_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    _replace(folder / CONFIG_FILE, lambda path: write_json(path, content))
    check_checkpoint(folder)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name, then give it this one."""
    writing = path.with_name(f".{path.name}.writing")
    try:
        write(writing)
        writing.chmod(0o644)  # safetensors makes it private; a server may run as another user
        os.replace(writing, path)
    finally:
        writing.unlink(missing_ok=True)


def _has_gate_tensors(path: Path) -> bool:
    with safe_open(path, framework="pt") as file:
        return any(name.startswith(GATE_PREFIX) for name in file.keys())  # noqa: SIM118 - not a mapping
