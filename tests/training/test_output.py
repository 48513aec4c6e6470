"""Folders that commands write."""

from pathlib import Path

import pytest

from training.errors import UsageError
from training.output import prepare_output


def test_output_folder(tmp_path: Path) -> None:
    prepare_output(tmp_path / "new" / "folder", force=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not empty; add --force"):
        prepare_output(tmp_path, force=False)
    prepare_output(tmp_path, force=True)
    with pytest.raises(UsageError, match="is a file"):
        prepare_output(tmp_path / "file", force=True)
    with pytest.raises(UsageError, match="cannot make"):
        prepare_output(tmp_path / "file" / "below", force=False)
