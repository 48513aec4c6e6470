"""The base model of a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from transformers import MistralForCausalLM

from quietstar_infer.errors import CheckpointError
from tests.support.checkpoints import copy_checkpoint, write_random_checkpoint
from training.thoughts.weights import load_base_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


def test_our_loader_agrees_with_transformers(folder: Path) -> None:
    ids = torch.arange(20)[None]
    theirs = MistralForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(load_base_model(folder)(ids).logits, theirs(ids).logits)


def test_an_incomplete_base_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"is incomplete: it lacks model\.layers\.2"):
        load_base_model(tmp_path)


def test_the_generation_config_is_the_checkpoints(folder: Path, tmp_path: Path) -> None:
    copy_checkpoint(folder, tmp_path / "without")
    assert load_base_model(tmp_path / "without").generation_config.eos_token_id == 2
    copy_checkpoint(folder, tmp_path / "own")
    own = {"eos_token_id": [2, 5, 9], "top_p": 0.8, "do_sample": True}
    (tmp_path / "own" / "generation_config.json").write_text(json.dumps(own))
    found = load_base_model(tmp_path / "own").generation_config.to_diff_dict()
    assert {name: found[name] for name in own} == own
