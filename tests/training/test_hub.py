"""Names on the hub, and what can only be a path."""

import pytest

from training.hub import is_hub_name


@pytest.mark.parametrize("name", ["gpt2", "mistralai/Mistral-7B-v0.1", "runs/first"])
def test_names(name: str) -> None:
    assert is_hub_name(name)


@pytest.mark.parametrize("path", ["/model", "./model", "../model", "a/b/c", "~/model", "a//b"])
def test_paths(path: str) -> None:
    assert not is_hub_name(path)
