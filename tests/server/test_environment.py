"""Environment variables that are set before vLLM is imported."""

import os
import subprocess
import sys

import pytest

from server.environment import DEFAULTS, set_defaults
from tests.support.servers import ROOT


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.setenv(name, "theirs")
    set_defaults()
    assert {os.environ[name] for name in DEFAULTS} == {"theirs"}


def test_they_are_set_before_vllm_is_imported() -> None:
    """`python -m server` imports `server` and `server.environment` first, which import none of
    it."""
    code = "import sys, server.environment; print('vllm' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
