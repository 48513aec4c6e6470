"""Small random thought gates."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from quietstar_infer.checkpoint import GATE_FILE, gate_tensor_shapes
from quietstar_infer.config import read_json
from quietstar_infer.gate import GateConfig
from tests.support.checkpoints import copy_checkpoint


def copy_with_gate(source: Path, folder: Path, budgets: tuple[int, ...], seed: int = 0) -> Path:
    """Copy a checkpoint, and give it a random gate for these budgets."""
    config = dict(read_json(source / "config.json"))
    section = {**config.get("quiet_star", {}), "gate": {"hidden_size": 8, "budgets": list(budgets)}}
    copy_checkpoint(source, folder, config={**config, "quiet_star": section})
    generator = torch.Generator().manual_seed(seed)
    shapes = gate_tensor_shapes(config["hidden_size"], GateConfig(8, budgets))
    tensors = {
        name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    save_file(tensors, folder / GATE_FILE)
    return folder
