"""Models that are made to be measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.engine.shapes import LARGER, MISTRAL_7B, TINY, Shape, write_base_model, write_model
from quietstar_infer.checkpoint import check_checkpoint, load_tensors, thought_tensor_shapes


@pytest.mark.parametrize(
    ("shape", "parameters"), [(LARGER, 213_158_912), (MISTRAL_7B, 7_110_668_288)]
)
def test_number_of_weights_that_a_pass_reads(shape: Shape, parameters: int) -> None:
    assert shape.pass_parameters == parameters


def test_a_base_model_is_the_checkpoint_without_the_tensors_of_thinking(
    checkpoint: Path, tmp_path: Path
) -> None:
    base_model = load_tensors(write_base_model(tmp_path / "model", checkpoint))
    tensors = load_tensors(checkpoint)
    assert set(tensors) - set(base_model) == set(thought_tensor_shapes(64))
    assert all(torch.equal(base_model[name], tensors[name]) for name in base_model)


def test_a_random_model_is_a_valid_checkpoint(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", replace(TINY, vocab_size=99), torch.bfloat16)
    check_checkpoint(folder, has_base_model=False)
