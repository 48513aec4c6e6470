"""What thoughts are expected to save, against the reference decoder."""

from pathlib import Path

import pytest
import torch

from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import write_random_checkpoint
from tests.support.training.gates import copy_with_gate
from training.evaluations.backends.expected_gain import expected_gains
from training.evaluations.evaluated_model import load_evaluated_gate, load_for_evaluation
from training.kernels.thought_attention import TextAttention


@pytest.mark.parametrize("has_gate", [False, True], ids=["entropy", "learned"])
@torch.inference_mode()
def test_expected_gains_are_the_reference_decoders(tmp_path: Path, has_gate: bool) -> None:
    folder = write_random_checkpoint(tmp_path / "plain", "mistral")
    if has_gate:
        folder = copy_with_gate(folder, tmp_path / "gate", (4,))
    reference = ReferenceDecoder.from_checkpoint(folder)
    thinker, _ = load_for_evaluation(folder, None, "cpu", "float32")
    gate = load_evaluated_gate(folder, thinker)
    ids = [1, 9, 8, 5, 30]
    base_NH = thinker.text_states(TextAttention(needs_grad=False), torch.tensor([ids]))[0]
    for budget in (2, 4):
        wanted = [
            reference.predict(ids[: end + 1], budget).expected_gain for end in range(len(ids))
        ]
        found = expected_gains(thinker, gate, base_NH, budget)
        assert found.tolist() == pytest.approx(wanted, abs=1e-4)
