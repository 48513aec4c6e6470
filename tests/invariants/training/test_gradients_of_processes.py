"""Several processes with DDP and FSDP, and accumulation, give the gradient of a single process; and
an evaluation its numbers.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from quietstar_infer.config import load_tokenizer
from tests.support.training.gradients import (
    EVALUATED,
    UNEVEN,
    Share,
    evaluation,
    first_gradients,
    recipe_without_clipping,
    step_gradients,
)
from training.config import PRESETS
from training.trainer.build import build
from training.trainer.data import load_pieces

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The gradient of four sequences at once, of different lengths, by preset."""
    return {
        preset: first_gradients(recipe_without_clipping(folder, 4, preset)) for preset in PRESETS
    }


def assert_equal(gradients: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    assert gradients.keys() == whole.keys()
    for name, expected in whole.items():
        difference = (gradients[name] - expected).abs().max()
        assert difference <= TOLERANCE * expected.abs().max(), f"{name}: {difference}"


def of(found: dict[str, Tensor], way: str) -> dict[str, Tensor]:
    """The gradients that were found in one of the ways."""
    prefix = f"{way}."
    return {n.removeprefix(prefix): g for n, g in found.items() if n.startswith(prefix)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("at_once", [1, 2])
def test_accumulation(
    folder: Path, whole: dict[str, dict[str, Tensor]], preset: str, at_once: int
) -> None:
    recipe = recipe_without_clipping(folder, at_once, preset)
    assert_equal(first_gradients(recipe), whole[preset])


def test_the_texts_of_a_step_differ_in_length(folder: Path) -> None:
    """So that a mean of the batches' means would be another number."""
    recipe = recipe_without_clipping(folder, 4)
    lengths = {
        len(row["input_ids"]) for row in load_pieces(recipe, load_tokenizer(folder / "start")).train
    }
    assert lengths == {5, 6, 8, 16}


def test_two_processes(folder: Path, whole: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    out = tmp_path / "gradients.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    module = ["-m", "tests.support.training.gradients", str(folder), str(out)]
    done = subprocess.run([*launcher, *module], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sharded by FSDP" in done.stdout
    found = load_file(out)
    for preset in PRESETS:
        for at_once in (1, 2):
            assert_equal(of(found, f"ddp-{preset}-{at_once}"), whole[preset])
    for documents, _ in EVALUATED:
        metrics = {name: float(x) for name, x in of(found, f"evaluation-{documents}").items()}
        assert metrics == pytest.approx(evaluation(folder, documents, 1), rel=1e-5)
    model = build(recipe_without_clipping(folder, 4)).model
    assert_equal(of(found, "fsdp"), step_gradients(model, Share(slice(None))))
    # Texts of different lengths: the mean over the processes' own gradients.
    first, second = (step_gradients(model, share) for share in UNEVEN)
    mean = {name: (gradient + second[name]) / 2 for name, gradient in first.items()}
    assert_equal(of(found, "uneven"), mean)
