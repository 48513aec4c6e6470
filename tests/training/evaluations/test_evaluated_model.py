"""The model that is evaluated."""

from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import write_random_checkpoint
from training.errors import UsageError
from training.evaluations.evaluated_model import load_for_evaluation


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


def test_a_device_that_is_not_there(mistral: Path) -> None:
    with pytest.raises(UsageError, match="--device"):
        load_for_evaluation(
            mistral, None, "cuda:99" if torch.cuda.is_available() else "cuda", "float32"
        )
