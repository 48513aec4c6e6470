"""Environment variables that are set before vLLM is imported."""

import os
import subprocess
import sys

import pytest

from server.environment import DEFAULTS, set_defaults
from tests.support.servers import ROOT


def test_variables_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.setenv(name, "theirs")
    set_defaults()
    assert {os.environ[name] for name in DEFAULTS} == {"theirs"}


def test_neither_vllm_nor_torch_is_imported() -> None:
    """`python -m server` imports only `server` and `server.environment` before it sets them."""
    code = "import sys, server.environment; print('vllm' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
