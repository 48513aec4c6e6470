"""A gate in a checkpoint: what is written, what is refused, and that nobody else is disturbed."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from quietstar_infer.checkpoint import GATE_FILE, check_checkpoint, load_gate, load_tensors
from quietstar_infer.config import EffortThresholds, QuietStarConfig
from quietstar_infer.gate import GateConfig, ThoughtGate
from tests.support.checkpoints import write_random_checkpoint
from training.errors import UsageError
from training.gate import gate_files
from training.gate.gate_files import Thresholds, check_gate_place, write_gate

CONFIG = GateConfig(8, (2, 4))
THRESHOLDS = Thresholds(0.05, EffortThresholds(low=0.5, medium=0.05, high=0.01))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model", "mistral")


def gate(seed: int = 0, config: GateConfig = CONFIG) -> ThoughtGate:
    torch.manual_seed(seed)
    return ThoughtGate(64, config)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_gate_is_written_and_nothing_else_changes(folder: Path) -> None:
    before, expected = files(folder), gate()
    config_before = json.loads(before.pop("config.json"))
    write_gate(folder, expected, CONFIG, THRESHOLDS)
    after = files(folder)
    config_after = json.loads(after.pop("config.json"))
    assert after.keys() - before.keys() == {GATE_FILE}
    assert {name: after[name] for name in before} == before
    section = config_after.pop("quiet_star")
    assert section == config_before.pop("quiet_star", {}) | {
        "gate": {"hidden_size": 8, "budgets": [2, 4]},
        "default_thought_threshold": 0.05,
        "effort_thresholds": {"low": 0.5, "medium": 0.05, "high": 0.01},
    }
    assert config_after == config_before
    config = QuietStarConfig.from_checkpoint(folder)
    assert (config.default_thought_threshold, config.effort_thresholds) == (
        THRESHOLDS.default,
        THRESHOLDS.efforts,
    )
    loaded = load_gate(folder, config)
    assert loaded is not None
    base_NH = torch.randn(5, 64)
    torch.testing.assert_close(loaded.gains(base_NH), expected.gains(base_NH))


def test_the_file_can_be_read_by_a_server_of_another_user(folder: Path) -> None:
    write_gate(folder, gate(), CONFIG, THRESHOLDS)
    assert (folder / GATE_FILE).stat().st_mode & 0o777 == 0o644
    assert (folder / GATE_FILE).stat().st_size < 10_000


def test_the_official_layout_is_read_as_before(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers' plain `from_pretrained`, which the official code uses, opens model.safetensors
    only: the same tensors, and not one message more.
    """

    def read() -> tuple[dict[str, torch.Tensor], list[str], dict[str, Any]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "transformers"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        model, report = loaded
        return model.state_dict(), [record.getMessage() for record in caplog.records], report

    before, messages_before, report_before = read()
    official = load_tensors(folder)
    write_gate(folder, gate(), CONFIG, THRESHOLDS)
    after, messages_after, report_after = read()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert report_after == report_before
    assert len(messages_after) == len(messages_before)
    assert "thought_gate" not in " ".join([*messages_after, str(report_after)])
    assert load_tensors(folder).keys() == official.keys()
    assert not any("thought_gate" in name for name in load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("fails_at", ["save_file", "write_json"])
def test_what_cannot_be_written_leaves_a_complete_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    before = files(folder)
    monkeypatch.setattr(gate_files, fails_at, fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_gate(folder, gate(), CONFIG, THRESHOLDS)
    after = files(folder)
    after.pop(GATE_FILE, None)  # of no effect without its keys of config.json
    assert after == before
    check_checkpoint(folder)
    assert load_gate(folder, QuietStarConfig.from_checkpoint(folder)) is None


def test_a_gate_is_replaced_on_demand_only_also_by_one_of_another_size(folder: Path) -> None:
    check_gate_place(folder, replace=False)
    write_gate(folder, gate(), CONFIG, THRESHOLDS)
    with pytest.raises(UsageError, match="has a thought gate already; add --replace"):
        check_gate_place(folder, replace=False)
    check_gate_place(folder, replace=True)
    other = GateConfig(16, (12,))
    write_gate(folder, gate(1, other), other, THRESHOLDS)
    check_checkpoint(folder)
    assert QuietStarConfig.from_checkpoint(folder).gate == other


def test_gate_tensors_among_others_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    save_file(load_file(weights) | {"thought_gate.0.weight": torch.zeros(8, 64)}, weights)
    with pytest.raises(UsageError, match="has a thought gate among other tensors"):
        check_gate_place(folder, replace=True)
