"""`python -m training gate`, on a small random thinker."""

import json
from collections.abc import Iterator
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from quietstar_infer.checkpoint import GATE_FILE, check_checkpoint, load_gate
from quietstar_infer.config import QuietStarConfig
from quietstar_infer.gate import GateConfig
from tests.support.checkpoints import TOKENIZER, write_random_checkpoint
from tests.support.training.runs import write_text
from training.cli import main

OPTIONS = ["--budgets", "4", "2", "--documents", "40", "--epochs", "3", "--hidden-size", "8"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_text(tmp_path / "text.jsonl")
    return write_random_checkpoint(tmp_path / "model", "mistral")


def run(folder: Path, *options: str) -> int:
    data = ["--data", str(folder.parent / "text.jsonl")]
    return main(["gate", str(folder), *data, "--out", str(folder.parent / "report"), *options])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr."""
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_a_gate_is_fitted_reported_and_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    assert run(folder, *OPTIONS) == 0
    printed = capsys.readouterr()
    assert "| medium (default) |" in printed.out
    assert "32 documents, 8 held out, thoughts of 2, 4 tokens" in printed.err
    assert "thoughts: 100%" in printed.err
    assert (folder / "model.safetensors").read_bytes() == weights
    check_checkpoint(folder)
    config = QuietStarConfig.from_checkpoint(folder)
    assert config.gate == GateConfig(8, (2, 4))
    assert load_gate(folder, config) is not None
    report = folder.parent / "report"
    results = json.loads((report / "gate.json").read_text(encoding="utf-8"))
    efforts = config.effort_thresholds
    assert efforts.low >= efforts.medium >= efforts.high > 0
    assert config.default_thought_threshold == efforts.medium
    for effort, share in (("low", 0.8), ("medium", 0.97), ("high", 0.99)):
        assert results["efforts"][effort]["threshold"] == getattr(efforts, effort)
        assert results["efforts"][effort]["keeps"] >= share
    assert set(results["tradeoffs"]) == {"gate", "entropy", "oracle"}
    assert results["budget"] == 4
    markdown = (report / "gate.md").read_text(encoding="utf-8")
    assert markdown.count("| --- |") == 4
    assert "gate.svg" in markdown
    assert (report / "gate.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_second_gate_needs_replace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, *OPTIONS) == 0
    assert run(folder, *OPTIONS) == 2
    assert "add --replace to fit it anew" in error(capsys)
    assert run(folder, *OPTIONS, "--replace", "--seed", "1") == 0


def test_the_same_gate_again(folder: Path) -> None:
    assert run(folder, *OPTIONS) == 0
    first = (folder / GATE_FILE).read_bytes()
    assert run(folder, *OPTIONS, "--replace") == 0
    assert (folder / GATE_FILE).read_bytes() == first


def test_documents_that_are_held_out_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = write_text(folder.parent / "elsewhere.jsonl", documents=12)
    assert run(folder, *OPTIONS, "--eval-data", str(elsewhere)) == 0
    assert "40 documents, 12 held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere.jsonl"], "cannot read the data set nowhere.jsonl"),
        (["--column", "words"], "has no column 'words'"),
        (["--prompt-column", "asked"], "has no column 'asked'"),
        (["--documents", "5"], "documents is 5, expected 10 or more"),
        (["--budgets", "1020"], "the model has 1024"),
        (["--device", "cuda:77"], "--device cuda:77"),
    ],
)
def test_wrong_options_are_one_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(folder, *options) == 2
    assert message in error(capsys)
    assert not (folder / GATE_FILE).exists()


def test_a_budget_of_0_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(folder, "--budgets", "0")
    assert "'0' is not a whole number from 1" in capsys.readouterr().err


def test_too_few_documents(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(folder.parent / "text.jsonl", documents=9)
    assert run(folder) == 2
    assert "has 9 documents of two tokens or more, at least 10 are needed" in error(capsys)


def test_a_plain_base_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = folder.parent / "plain"
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(plain)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(plain)
    assert run(plain) == 2
    assert "is not a Quiet-STaR checkpoint: it has no thoughts that a gate could skip" in error(
        capsys
    )


def test_not_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "missing") == 2
    assert "is not a folder" in error(capsys)


def test_a_gate_of_another_size_than_its_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *OPTIONS) == 0
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["quiet_star"]["gate"]["hidden_size"] = 16
    path.write_text(json.dumps(content), encoding="utf-8")
    assert run(folder, "--replace") == 1
    assert "thought_gate.0.weight has shape (8, 64), expected (16, 64)" in error(capsys)


def test_a_thinker_whose_thoughts_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "mistral")
    write_text(tmp_path / "text.jsonl")
    tensors = load_file(folder / "model.safetensors")
    last = "talk_head.0.4.weight"
    save_file(tensors | {last: torch.zeros_like(tensors[last])}, folder / "model.safetensors")
    assert run(folder, *OPTIONS) == 2
    assert "thoughts change no prediction of this model" in error(capsys)
    assert not (folder / GATE_FILE).exists()
