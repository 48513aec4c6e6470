"""Thought attention by flash kernels.

A GPU's kernels need a GPU. Where there is none, the CPU's kernels, which have the same contract,
replace them in comparisons of values; of the GPU's only the signatures are tested, on meta tensors.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.checkpoints import write_random_checkpoint
from tests.support.training.paths import dense_attention, random_paths
from tests.support.training.steps import assert_same, outcome, short, texts
from training.config import OFFICIAL, Thinking
from training.kernels import attention, flash_attention
from training.kernels.flash_attention import Attended, FlashAttention, KeyKind
from training.thoughts.model import QuietThinker
from training.thoughts.reference_step import reference_step
from training.thoughts.training_step import training_step

_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(query: Tensor, kind: KeyKind, scaling: float) -> Attended:
    out, log_sum = _cpu(query, kind.key, kind.value, 0.0, kind.causal, scale=scaling)
    return Attended(out, log_sum, ())


def attend_backward(
    grad: Tensor, query: Tensor, kind: KeyKind, whole: Attended, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    keys = kind.key, kind.value, whole.out, whole.log_sum
    grads: tuple[Tensor, Tensor, Tensor] = _cpu_backward(
        grad, query, *keys, 0.0, kind.causal, scale=scaling
    )
    return grads


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[KeyKind]:
    """Attention by the CPU's flash kernels, and what they were called for."""
    called = []

    def counted(query: Tensor, kind: KeyKind, scaling: float) -> Attended:
        called.append(kind)
        return attend(query, kind, scaling)

    monkeypatch.setattr(flash_attention, "supports", lambda query: True)
    monkeypatch.setattr(flash_attention, "attend", counted)
    monkeypatch.setattr(flash_attention, "attend_backward", attend_backward)
    return called


@pytest.mark.parametrize(("first", "length"), [(0, 3), (2, 3), (0, 1), (4, 1)])
def test_equals_dense_attention(kernels: list[KeyKind], first: int, length: int) -> None:
    """Values and gradients, for the positions from `first` on."""
    whole = random_paths(positions=5, per_position=2, length=length)
    query, text_key, text_value, own_key, own_value = whole
    some = [x[:, :, first:] for x in (query, own_key, own_value)]
    ours = attention.path_attention(some[0], text_key, text_value, some[1], some[2], 0.3)
    theirs = dense_attention(*whole)[:, :, first:]
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for actual, expected in zip(
        torch.autograd.grad((ours * weights).sum(), whole),
        torch.autograd.grad((theirs * weights).sum(), whole),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)
    assert len(kernels) == (3 if first else 2)


@pytest.mark.parametrize("passes", [1, 4])
def test_the_step_equals_the_dense_one(kernels: list[KeyKind], passes: int, tmp_path: Path) -> None:
    """A whole training step, thoughts sampled and paths read by flash kernels."""
    checkpoint = write_random_checkpoint(tmp_path, "mistral")
    preset = short(OFFICIAL, Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(checkpoint)
    fast = outcome(training_step, thinker, texts(), preset, passes=passes)
    assert kernels
    assert_same(fast, outcome(reference_step, thinker, texts(), preset))


def test_the_signatures_of_a_gpus_kernels() -> None:
    inputs = [
        torch.empty(x.shape, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for x in random_paths(positions=5, per_position=2, length=3)
    ]
    query, text_key, text_value, own_key, own_value = inputs
    late = [x[:, :, 2:] for x in (query, own_key, own_value)]
    out = FlashAttention.apply(  # type: ignore[no-untyped-call]  # torch's
        late[0], text_key, text_value, late[1], late[2], 0.3
    )
    assert (out.shape, out.dtype) == (late[0].shape, torch.bfloat16)
    for x, gradient in zip(inputs, torch.autograd.grad(out.sum(), inputs), strict=True):
        assert (gradient.shape, gradient.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize(
    ("dtype", "size", "device", "taken"),
    [
        (torch.bfloat16, 128, "cuda", True),
        (torch.float16, 64, "cuda", True),
        (torch.float32, 128, "cuda", False),
        (torch.bfloat16, 300, "cuda", False),
        (torch.bfloat16, 4, "cuda", False),
        (torch.bfloat16, 128, "cpu", False),
    ],
)
def test_what_the_kernels_support(
    dtype: torch.dtype, size: int, device: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with FakeTensorMode():
        assert flash_attention.supports(torch.empty(2, size, dtype=dtype, device=device)) is taken


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu() -> None:
    """The kernels of a GPU in bfloat16, against exact attention to the rounded numbers."""
    exact = [x.detach().bfloat16().float() for x in random_paths(5, 2, 3, size=16)]
    for x in exact:
        x.requires_grad_()
    rounded = [x.detach().bfloat16().cuda().requires_grad_() for x in exact]
    query, text_key, text_value, own_key, own_value = rounded
    assert flash_attention.supports(query)
    ours = attention.path_attention(query, text_key, text_value, own_key, own_value, 0.3)
    theirs = dense_attention(*exact)
    torch.testing.assert_close(ours.float().cpu(), theirs, rtol=0.03, atol=0.03)
    for actual, expected in zip(
        torch.autograd.grad(ours.sum(), rounded),
        torch.autograd.grad(theirs.sum(), exact),
        strict=True,
    ):
        torch.testing.assert_close(actual.float().cpu(), expected, rtol=0.05, atol=0.05)
