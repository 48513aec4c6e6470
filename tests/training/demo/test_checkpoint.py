"""The written base model is a complete checkpoint of the official layout."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, MistralForCausalLM

from quietstar_infer.checkpoint import check_checkpoint, load_tensors, thought_tensor_shapes
from quietstar_infer.config import DASH, QuietStarConfig
from training.demo.base_model import BaseModelConfig, BaseModelTraining
from training.demo.base_model_build import build_base_model
from training.demo.forced_thoughts import Evaluation
from training.demo.recipe import BaseModelRecipe

HIDDEN = 64
TINY = BaseModelRecipe(
    model=BaseModelConfig(hidden=HIDDEN, layers=1, heads=2, intermediate=64, max_positions=256),
    training=BaseModelTraining(steps=3, documents_per_step=4),
    tokenizer_documents=500,
    evaluation=Evaluation(problems=3, budgets=(0, 1)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after three steps of training."""
    path = tmp_path_factory.mktemp("demo") / "model"
    measured = build_base_model(TINY, path)
    assert measured in (path / "README.md").read_text()
    return path


def test_layout(folder: Path) -> None:
    check_checkpoint(folder)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_names_shapes_and_types(folder: Path) -> None:
    found = load_tensors(folder)
    reference = MistralForCausalLM.from_pretrained(folder).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in reference.items()}
    expected |= thought_tensor_shapes(HIDDEN)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_thought_parts_are_initialised_as_in_the_official_code(folder: Path) -> None:
    tensors = load_tensors(folder)
    table_VH = tensors["model.embed_tokens.weight"]
    (dash,) = AutoTokenizer.from_pretrained(folder).encode(DASH, add_special_tokens=False)
    for name in ("start_embedding", "end_embedding"):
        torch.testing.assert_close(tensors[name][0] * 100, table_VH[dash])
        torch.testing.assert_close(tensors[name][1].exp() * 1e4, table_VH.std(dim=0))
    assert not tensors["talk_head.0.4.weight"].any()
    for layer, inputs in ((0, 2 * HIDDEN), (2, HIDDEN)):
        for part in ("weight", "bias"):
            values = tensors[f"talk_head.0.{layer}.{part}"]
            assert 0.9 < values.abs().max() * inputs**0.5 <= 1


def test_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MistralForCausalLM"]
    assert config["torch_dtype"] == "float32"
    assert config["quiet_star"].keys() == {
        "default_thought_budget",
        "trained_on",
        "embedding_mode",
        "embedding_scale",
        "example_prompt",
    }
    facts = QuietStarConfig.from_checkpoint(folder)
    assert facts.default_thought_budget == 12
    assert facts.meta_token_ids == (config["vocab_size"] - 2, config["vocab_size"] - 1)
