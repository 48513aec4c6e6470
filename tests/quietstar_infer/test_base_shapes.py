"""The shapes that are expected are those of the models that transformers builds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from quietstar_infer.base_shapes import base_tensor_shapes, missing_base_tensors
from quietstar_infer.config import read_json
from tests.support.servers import DEMO, GOLDEN

BEYOND = ("start_embedding", "end_embedding", "talk_head.", "thought_gate.")
ELSEWHERE = ("lm_head.weight", "model.embed_tokens.weight")


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def check(folder: Path) -> None:
    """All tensors of the base model have a shape that is known, and is right."""
    found = shapes_in(folder)
    expected = base_tensor_shapes(list(found), read_json(folder / "config.json"))
    known = {name for name in found if not name.startswith(BEYOND)} - set(ELSEWHERE)
    assert expected.keys() == known
    assert expected == {name: found[name] for name in known}
    config = read_json(folder / "config.json")
    assert missing_base_tensors(found, config) == []
    for name in known:
        if name.endswith(".weight") and "q_norm" not in name and "k_norm" not in name:
            assert missing_base_tensors(found.keys() - {name}, config) == [name]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_tensors_of_all_families(random_checkpoint: Callable[[str], Path], family: str) -> None:
    check(random_checkpoint(family))


@pytest.mark.parametrize("folder", [DEMO, GOLDEN / "engine_greedy_n4" / "checkpoint"])
def test_the_tensors_of_real_checkpoints(folder: Path) -> None:
    check(folder)


def test_quantised_checkpoints_are_packed() -> None:
    config = read_json(DEMO / "config.json")
    names = ["model.norm.weight"]
    assert base_tensor_shapes(names, config) == {"model.norm.weight": (config["hidden_size"],)}
    assert base_tensor_shapes(names, {**config, "quantization_config": {"bits": 8}}) == {}
