"""Checkpoints and options that cannot be served: one sentence that names the tensor or the option,
and an exit status that says not to try again."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.errors import ExitStatus
from tests.support.quantised import SCHEMES, write_quantised
from tests.support.servers import GOLDEN, ROOT, START_SECONDS, TEST_OPTIONS

pytestmark = pytest.mark.slow

MODEL = GOLDEN / "engine_greedy_n4" / "checkpoint"
Change = Callable[[torch.Tensor], torch.Tensor]


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T.contiguous()


def longer(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor])


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().index_fill(0, torch.tensor([3]), torch.nan).view(tensor.shape)


def with_infinity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().index_fill(0, torch.tensor([0]), torch.inf).view(tensor.shape)


def changed_model(folder: Path, tensor: str, change: Change) -> Path:
    """A checkpoint with one tensor changed."""
    shutil.copytree(MODEL, folder, copy_function=shutil.copyfile)
    (file,) = [file for file in folder.glob("*.safetensors") if tensor in load_file(file)]
    tensors = load_file(file)
    tensors[tensor] = change(tensors[tensor])
    save_file(tensors, file)
    return folder


def last_line(status: ExitStatus, model: Path, *options: str) -> str:
    """The only line on standard error of a start that fails with this status."""
    done = subprocess.run(
        [sys.executable, "-m", "server", str(model), "--port", "0", *TEST_OPTIONS, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("python -m server: ")
    assert len(line) < 1000
    return line


@pytest.mark.parametrize(
    ("tensor", "change", "words"),
    [
        ("model.layers.0.mlp.down_proj.weight", transposed, "expected (128, 256)"),
        # vLLM would read its beginning.
        ("model.layers.1.self_attn.q_proj.weight", longer, "expected (128, 128)"),
        ("model.norm.weight", longer, "expected (128,)"),
        ("model.layers.0.mlp.down_proj.weight", with_nan, "numbers that are not finite"),
        ("talk_head.0.0.weight", with_nan, "numbers that are not finite"),
        ("model.embed_tokens.weight", with_infinity, "numbers that are not finite"),
        ("start_embedding", with_nan, "numbers that are not finite"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named(
    tmp_path: Path, tensor: str, change: Change, words: str
) -> None:
    model = changed_model(tmp_path / "model", tensor, change)
    line = last_line(ExitStatus.NO_MODEL, model)
    assert words in line
    assert tensor in line


def test_a_quantised_checkpoint_in_float32_is_refused(tmp_path: Path) -> None:
    twins = write_quantised(tmp_path, next(iter(SCHEMES.values())))
    line = last_line(ExitStatus.BAD_OPTION, twins.quantised)
    assert "--dtype is float32, but the checkpoint is quantised" in line


def test_an_option_that_vllm_refuses_is_named() -> None:
    line = last_line(ExitStatus.BAD_OPTION, MODEL, "--block-size", "0")
    assert "--block-size is 0: Input should be greater than 0" in line


def test_an_alias_that_the_server_does_not_allow_is_named() -> None:
    line = last_line(ExitStatus.BAD_OPTION, MODEL, "--alias", "deep=budget:17")
    assert line.endswith(
        "--alias deep: thought_budget is 17, this server allows a whole number from 0 to 16"
    )
