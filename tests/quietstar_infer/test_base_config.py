"""A config.json that no model can be made of is refused, and the field named."""

import json
from pathlib import Path
from typing import Any

import pytest

from quietstar_infer.base_config import check_base_config
from quietstar_infer.errors import CheckpointError
from tests.support.checkpoints import FAMILIES, write_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads of 32, and one for keys."""
    return write_random_checkpoint(tmp_path_factory.mktemp("config"), "llama")


def fields_of(checkpoint: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    return fields


@pytest.mark.parametrize("family", FAMILIES)
def test_good_ones_are_accepted(tmp_path: Path, family: str) -> None:
    folder = write_random_checkpoint(tmp_path, family)
    check_base_config(fields_of(folder), folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("hidden_size", None, "hidden_size is None, expected a whole number from 1 up"),
        ("hidden_size", "64", "hidden_size is '64', expected a whole number"),
        ("hidden_size", 0, "hidden_size is 0, expected a whole number"),
        ("hidden_size", True, "hidden_size is True, expected a whole number"),
        ("num_hidden_layers", -1, "num_hidden_layers is -1"),
        ("num_attention_heads", 0, "num_attention_heads is 0"),
        ("num_key_value_heads", "x", "num_key_value_heads is 'x'"),
        ("head_dim", 0, "head_dim is 0"),
        ("max_position_embeddings", None, "max_position_embeddings is None"),
        ("num_key_value_heads", 3, "num_attention_heads is 2, which is no multiple of num_key"),
        ("rms_norm_eps", "small", "Field 'rms_norm_eps' expected float, got str"),
        ("rope_scaling", {"rope_type": "nosuch", "factor": 2}, "rope_type is 'nosuch', expected"),
        ("rope_scaling", {"rope_type": "yarn"}, "Missing required keys"),
        ("rope_scaling", "yes", "rope_parameters"),
        (
            "rope_scaling",
            {"rope_type": "linear", "factor": "x"},
            "factor is 'x', expected a finite",
        ),
        ("rope_parameters", {"rope_type": "default", "rope_theta": "x"}, "rope_theta is 'x'"),
        ("quantization_config", ["int8"], "cannot be used: AttributeError"),
        ("model_type", ["llama"], "model_type is ['llama'], expected a name"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(
    checkpoint: Path, tmp_path: Path, field: str, value: Any, words: str
) -> None:
    fields = fields_of(checkpoint)
    # It is what transformers has written, beside the older name.
    fields.pop("rope_parameters", None)
    fields |= {field: value}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError) as raised:
        check_base_config(fields, tmp_path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_heads_that_do_not_divide_the_hidden_size_are_refused(checkpoint: Path) -> None:
    fields = fields_of(checkpoint) | {"num_attention_heads": 3, "head_dim": None}
    with pytest.raises(CheckpointError, match="hidden_size is 64, which is no multiple of num_"):
        check_base_config(fields, checkpoint)
