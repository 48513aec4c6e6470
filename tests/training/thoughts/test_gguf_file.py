"""Base models from GGUF files."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from quietstar_infer.config import END_TOKEN, START_TOKEN
from tests.support.training.gguf_files import small_llama, write_gguf
from training.errors import UsageError
from training.thoughts import gguf_file
from training.thoughts.gguf_file import load_gguf_model
from training.thoughts.loading import load_model, load_source


@pytest.mark.parametrize("load", [load_model, load_source])
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: object
) -> None:
    assert callable(load)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"nonsense")
    monkeypatch.setattr(gguf_file, "is_gguf_available", lambda: True)
    with pytest.raises(UsageError, match=r"model\.gguf: it is no GGUF file"):
        load(str(file))
    monkeypatch.setattr(gguf_file, "is_gguf_available", lambda: False)
    with pytest.raises(UsageError, match="GGUF files need the package gguf"):
        load(str(file))
    other = tmp_path / "model.bin"
    other.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"it is a file, expected a folder or \.gguf"):
        load(str(other))
    with pytest.raises(UsageError, match="there is no such folder"):
        load(str(tmp_path / "missing.gguf"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(small_llama(), tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_weights_are_the_dequantized_ones(file: Path) -> None:
    """In float32, so that they can be trained, and saved like any others."""
    expected = small_llama()
    model = load_gguf_model(file)
    weights = model.state_dict()
    for name, tensor in expected.state_dict().items():
        assert weights[name].dtype == torch.float32
        coarse = tensor.abs().amax(-1, keepdim=True) / 127 if tensor.ndim == 2 else 1e-6
        assert ((weights[name] - tensor).abs() <= coarse).all(), name
    ids = torch.arange(40)[None]
    with torch.no_grad():
        found, wanted = (m.eval()(ids).logits.log_softmax(-1) for m in (model, expected))
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)


def test_the_tokenizer_is_the_files_own(file: Path) -> None:
    source = load_source(str(file))
    assert source.config.max_position_embeddings == 256
    ids = source.tokenizer.encode(" the---", add_special_tokens=False)
    assert source.tokenizer.convert_ids_to_tokens(ids) == ["Ġthe", "---"]
    said = source.tokenizer.apply_chat_template(
        [{"role": "user", "content": "the"}], tokenize=False
    )
    assert said == "the<|end|>"
    assert source.tokenizer.eos_token == "<|end|>"


def test_a_thinker_of_a_file_is_saved_as_any_other(file: Path, tmp_path: Path) -> None:
    thinker, tokenizer = load_model(str(file), 1.0)
    assert tokenizer.convert_ids_to_tokens(list(thinker.meta_token_ids)) == [START_TOKEN, END_TOKEN]
    dash = tokenizer.convert_tokens_to_ids("---")
    torch.testing.assert_close(thinker.start_H, thinker.embed(torch.tensor(dash)))
    thinker.base_model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for name, tensor in thinker.base_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
