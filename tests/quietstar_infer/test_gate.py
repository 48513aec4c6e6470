"""The thought gate, its place in a checkpoint, and the entropy where there is none."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quietstar_infer.checkpoint import GATE_FILE, check_checkpoint, load_gate, load_tensors
from quietstar_infer.config import EffortThresholds, QuietStarConfig
from quietstar_infer.errors import CheckpointError
from quietstar_infer.gate import (
    GateConfig,
    ThoughtGate,
    fused_gain,
    interpolation_table,
    prediction_entropy,
)
from tests.support.checkpoints import write_random_checkpoint, write_random_gate


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("plain"), "llama")


@pytest.fixture
def gated(plain: Path, tmp_path: Path) -> Path:
    return write_random_gate(tmp_path / "gated", plain)


def test_gains_are_interpolated_between_budgets() -> None:
    assert interpolation_table((2, 4)).tolist() == [
        [0.0, 0.0],  # nothing is gained without a thought
        [0.5, 0.0],
        [1.0, 0.0],
        [0.5, 0.5],
        [0.0, 1.0],
    ]


def test_expected_gains_are_those_of_each_rows_budget() -> None:
    torch.manual_seed(0)
    gate = ThoughtGate(8, GateConfig(hidden_size=4, budgets=(2, 4)))
    base_NH = torch.randn(5, 8)
    gain_NK = gate.gains(base_NH)
    assert (gain_NK > 0).all()
    gain_N = gate.expected_gain(base_NH, torch.tensor([0, 2, 3, 4, 100]))
    expected_N = torch.stack(
        [
            torch.tensor(0.0),
            gain_NK[1, 0],
            gain_NK[2].mean(),
            gain_NK[3, 1],
            gain_NK[4, 1],
        ]
    )
    torch.testing.assert_close(gain_N, expected_N)


def test_expected_gains_are_the_same_computed_in_one_operation() -> None:
    torch.manual_seed(0)
    gate = ThoughtGate(8, GateConfig(hidden_size=4, budgets=(2, 4)))
    base_NH, budget_N = torch.randn(5, 8).bfloat16(), torch.tensor([0, 2, 3, 4, 100])
    gain_N = fused_gain(base_NH, budget_N, *gate.tensors)
    torch.testing.assert_close(gain_N, gate.expected_gain(base_NH, budget_N))


def test_the_entropy_of_a_prediction() -> None:
    certain, even = [0.0, -math.inf, -math.inf], [1.0, 1.0, -math.inf]
    entropy_N = prediction_entropy(torch.tensor([certain, even]))
    assert entropy_N.tolist() == pytest.approx([0.0, math.log(2)])


def test_a_checkpoint_without_a_gate(plain: Path) -> None:
    config = QuietStarConfig.from_checkpoint(plain)
    assert (config.gate, config.default_thought_threshold) == (None, 0.0)
    assert config.effort_thresholds == EffortThresholds(low=0.5, medium=0.1, high=0.02)
    assert load_gate(plain, config) is None


def test_a_checkpoints_gate_is_loaded_apart_from_its_model(plain: Path, gated: Path) -> None:
    check_checkpoint(gated)
    gate = load_gate(gated, QuietStarConfig.from_checkpoint(gated))
    assert gate is not None
    stored = load_file(gated / GATE_FILE)
    assert {"thought_gate." + name for name in gate.state_dict()} == set(stored)
    for name, tensor in gate.state_dict().items():
        assert torch.equal(tensor, stored["thought_gate." + name])
    assert set(load_tensors(gated)) == set(load_tensors(plain))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gate": 3}, "quiet_star.gate: expected a hidden_size and a list of budgets"),
        ({"gate": {"hidden_size": 0, "budgets": [2]}}, "hidden_size is 0"),
        ({"gate": {"hidden_size": 16, "budgets": [4, 2]}}, r"budgets is \[4, 2\]"),
        ({"gate": {"hidden_size": 16, "budgets": []}}, "budgets is"),
        ({"gate": {"hidden_size": 32, "budgets": [2, 8]}}, "thought_gate.0.weight has shape"),
        ({"default_thought_threshold": -1}, "default_thought_threshold is -1"),
        ({"default_thought_threshold": "0.1"}, "default_thought_threshold is '0.1'"),
        ({"effort_thresholds": {"tiny": 1}}, "for each of low, medium, high"),
        ({"effort_thresholds": {"low": -1}}, "for each of low, medium, high"),
    ],
)
def test_bad_sections_are_refused(gated: Path, section: dict[str, object], message: str) -> None:
    config = json.loads((gated / "config.json").read_text())
    (gated / "config.json").write_text(json.dumps({**config, "quiet_star": section}))
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(gated)


def test_missing_tensors_are_named(gated: Path) -> None:
    tensors = load_file(gated / GATE_FILE)
    del tensors["thought_gate.2.bias"]
    save_file(tensors, gated / GATE_FILE)
    with pytest.raises(CheckpointError, match=r"no file has thought_gate\.2\.bias"):
        check_checkpoint(gated)
