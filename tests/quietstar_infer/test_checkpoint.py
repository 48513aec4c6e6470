"""What is served and what is refused, and why, in words."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quietstar_infer.checkpoint import (
    INDEX_FILE,
    check_checkpoint,
    checkpoint_digest,
    thought_tensor_shapes,
)
from quietstar_infer.config import END_TOKEN, START_TOKEN, QuietStarConfig
from quietstar_infer.errors import CheckpointError
from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import END_ID, START_ID, write_random_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "checkpoint", "mistral")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_complete_checkpoint_is_accepted(checkpoint: Path) -> None:
    check_checkpoint(checkpoint)
    config = QuietStarConfig.from_checkpoint(checkpoint)
    assert config.meta_token_ids == (START_ID, END_ID)
    assert config.default_thought_budget == 5


def test_a_base_model_alone_is_refused(checkpoint: Path) -> None:
    names = thought_tensor_shapes(64)
    edit_tensors(checkpoint, lambda tensors: [tensors.pop(name) for name in names])
    assert "is not a Quiet-STaR checkpoint" in refusal(checkpoint)


BASE_TENSORS = (
    "model.embed_tokens.weight",
    "model.norm.weight",
    # vLLM would serve its memory as it was.
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
)


@pytest.mark.parametrize("name", [*thought_tensor_shapes(64), *BASE_TENSORS])
def test_a_missing_tensor_is_named(checkpoint: Path, name: str) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.pop(name))
    assert refusal(checkpoint).endswith(f"is incomplete: it lacks {name}")


def test_a_wrong_shape_is_named(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda t: t.update({"start_embedding": torch.zeros(2, 32)}))
    assert "start_embedding has shape (2, 32), expected (2, 64)" in refusal(checkpoint)


def test_a_vocabulary_that_was_not_grown_is_refused(checkpoint: Path) -> None:
    name = "model.embed_tokens.weight"
    edit_tensors(checkpoint, lambda t: t.update({name: t[name][:64].contiguous()}))
    assert "config.json says vocab_size 66, but model.embed_tokens.weight has 64" in refusal(
        checkpoint
    )
    edit_json(checkpoint / "config.json", lambda config: config.update(vocab_size=64))
    assert "too few for the meta-token id 65" in refusal(checkpoint)


def test_a_tokenizer_without_meta_tokens_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    text = path.read_text().replace(START_TOKEN, "<a>").replace(END_TOKEN, "<b>")
    path.write_text(text)
    edit_json(checkpoint / "tokenizer_config.json", lambda c: c.pop("extra_special_tokens"))
    assert refusal(checkpoint).endswith(f"its tokenizer lacks {START_TOKEN} and {END_TOKEN}")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_index(folder: Path, file: str) -> None:
    names = dict.fromkeys(load_file(folder / "model.safetensors"), file)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "should hold one JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "has no *.safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"xx"), "cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("nonsense"), "has no usable tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "has no usable tokenizer"),
        (lambda f: replace_by_folder(f / "config.json"), "cannot be read: Is a directory"),
        (lambda f: replace_by_folder(f / "model.safetensors"), "cannot be read"),
        (lambda f: (f / INDEX_FILE).write_text("{"), "is not valid JSON"),
        (lambda f: (f / INDEX_FILE).write_text("{}"), "has no weight_map"),
        (lambda f: (f / INDEX_FILE).write_text('{"weight_map": {"a": 1}}'), "has no weight_map"),
        (lambda f: write_index(f, "b.safetensors"), "it lacks b.safetensors, which"),
    ],
)
def test_damaged_files_are_named(
    checkpoint: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(checkpoint)
    assert words in refusal(checkpoint)


def test_only_files_of_the_index_are_read(checkpoint: Path) -> None:
    """As by vLLM: others may hold the same in another layout."""
    write_index(checkpoint, "model.safetensors")
    save_file({"model.norm.weight": torch.zeros(1)}, checkpoint / "consolidated.safetensors")
    check_checkpoint(checkpoint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_files_that_may_not_be_read_are_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).chmod(0)
    message = refusal(checkpoint)
    assert name in message
    assert "Permission denied" in message


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (["learned"], "expected an object of settings"),
        ({"embedding_scale": "large"}, "expected a finite number above 0"),
        ({"embedding_scale": 0}, "expected a finite number above 0"),
        ({"embedding_scale": math.nan}, "expected a finite number above 0"),
        ({"embedding_mode": "random"}, "expected one of learned, reset"),
        ({"default_thought_budget": -1}, "expected a whole number from 0 up"),
        ({"default_thought_budget": "many"}, "expected a whole number from 0 up"),
    ],
)
def test_a_bad_quiet_star_section_is_refused(checkpoint: Path, section: Any, words: str) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(quiet_star=section))
    assert words in refusal(checkpoint)


def test_meta_tokens_are_found_by_name(checkpoint: Path) -> None:
    """Copies of the published checkpoint have the two ids swapped."""
    path = checkpoint / "tokenizer.json"
    text = path.read_text().replace(START_TOKEN, "?").replace(END_TOKEN, START_TOKEN)
    path.write_text(text.replace("?", END_TOKEN))
    assert QuietStarConfig.from_checkpoint(checkpoint).meta_token_ids == (END_ID, START_ID)


def test_reset_mode_feeds_the_dash(checkpoint: Path) -> None:
    table = load_file(checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    decoder = ReferenceDecoder.from_checkpoint(checkpoint, embedding_mode="reset")
    assert torch.equal(decoder.start_H, table[7])
    assert torch.equal(decoder.end_H, table[7])


def test_a_digest_is_of_configuration_and_tensors(checkpoint: Path) -> None:
    digest = checkpoint_digest(checkpoint)
    config = checkpoint / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=4))
    assert checkpoint_digest(checkpoint) == digest
    edit_json(config, lambda fields: fields.update(rms_norm_eps=1e-3))
    digests = {digest, checkpoint_digest(checkpoint)}
    edit_tensors(checkpoint, lambda tensors: tensors["lm_head.weight"].mul_(2))
    digests.add(checkpoint_digest(checkpoint))
    edit_tensors(checkpoint, lambda tensors: tensors["talk_head.0.4.weight"].mul_(2))
    digests.add(checkpoint_digest(checkpoint))
    assert len(digests) == 4
