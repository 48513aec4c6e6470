"""Base models from GGUF files."""

from pathlib import Path

import pytest

from training.errors import UsageError
from training.thoughts import gguf_file
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
