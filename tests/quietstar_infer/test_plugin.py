"""Only the version of vLLM whose private names are used is accepted."""

import pytest

from quietstar_infer.errors import UnsupportedError
from quietstar_infer.plugin import VLLM_VERSION, check_vllm_version, installed_vllm_version


@pytest.mark.parametrize("version", ["0.31.0", "0.32.1", "0.33.0rc1", "1.0"])
def test_another_vllm_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedError, match=f"exactly, found {version}"):
        check_vllm_version(version)


def test_this_vllm_is_accepted() -> None:
    check_vllm_version(installed_vllm_version())
    check_vllm_version(f"{VLLM_VERSION}+cpu")
