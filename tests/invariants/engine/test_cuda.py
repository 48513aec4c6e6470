"""The engine on an NVIDIA GPU: the same code, with and without CUDA graphs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm.config import CUDAGraphMode
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from benchmarks.engine.engine_handle import launched_engine
from benchmarks.engine.load import Load, random_requests
from benchmarks.engine.spec import EngineSpec
from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.thought_sampler import sample_seeded
from tests.support.checkpoints import GOLDEN, VOCAB_SIZE, write_random_checkpoint
from tests.support.engine import Ask, thinking_engine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("enforce_eager", [True, False])
@pytest.mark.parametrize("name", ["engine_greedy_n4", "engine_greedy_n8"])
def test_official_generations(name: str, enforce_eager: bool) -> None:
    folder = GOLDEN / name
    budget = json.loads((folder / "case.json").read_text())["n_ahead"] - 3
    recorded = json.loads((folder / "generation.json").read_text())["generations"]
    asks = [
        Ask(
            generation["input_ids"],
            ThoughtParams(budget, 0.0),
            {"max_tokens": len(generation["new_tokens"]), "ignore_eos": True},
        )
        for generation in recorded
    ]
    with thinking_engine(folder / "checkpoint", enforce_eager=enforce_eager) as engine:
        answers = engine.run(asks)
    for (answer,), generation in zip(answers, recorded, strict=True):
        assert answer.token_ids == generation["new_tokens"]
        assert answer.thoughts == [step["thought"][1:-1] for step in generation["steps"]]


def test_no_step_waits_for_the_device(tmp_path: Path) -> None:
    """vLLM's own check, which arms torch's sync debug mode in every step once the engine is warm:
    whatever makes the host wait in `execute_model` or `sample_tokens` is an error.
    """
    spec = EngineSpec(
        {
            "model": str(write_random_checkpoint(tmp_path / "thinker", "llama")),
            "dtype": "float32",
            "max_model_len": 512,
            "gpu_memory_utilization": 0.5,
        },
        {"max_thought_budget": 8},
        {"VLLM_GPU_SYNC_CHECK": "error"},
    )
    thinking = [
        request
        for budget in (0, 1, 8)
        for request in random_requests(
            4, length=20, vocab_size=VOCAB_SIZE, budget=budget, tokens=12
        )
    ]
    with launched_engine(spec) as engine:
        engine.wait_until_ready()
        assert len(engine.run(Load(tuple(thinking)))) == len(thinking)


def test_passes_of_single_tokens_run_as_full_cuda_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where START or END is fed in a row the batch is mixed, and runs piecewise."""
    modes: list[tuple[int, CUDAGraphMode]] = []
    decide = GPUModelRunner._determine_batch_execution_and_padding

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        decided = decide(self, *args, **kwargs)
        modes.append((kwargs["max_num_scheduled_tokens"], decided[0]))
        return decided

    checkpoint = write_random_checkpoint(tmp_path / "thinker", "llama")
    with thinking_engine(checkpoint, enforce_eager=False) as engine:
        assert engine.is_asynchronous
        monkeypatch.setattr(GPUModelRunner, "_determine_batch_execution_and_padding", noted)
        engine.run([Ask([1, 5, 9], ThoughtParams(4), {"max_tokens": 3, "ignore_eos": True})])
    decoding = modes[1:]  # after the prompt
    assert {mode for longest, mode in decoding if longest == 1} == {CUDAGraphMode.FULL}
    assert {mode for longest, mode in decoding if longest == 2} == {CUDAGraphMode.PIECEWISE}


def test_thought_tokens_are_sampled_on_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: set[str] = set()

    def noted(*tensors: torch.Tensor) -> torch.Tensor:
        sampled = sample_seeded(*tensors)
        devices.update(tensor.device.type for tensor in (*tensors, sampled))
        return sampled

    monkeypatch.setattr("quietstar_infer.vllm_plugin.thought_sampler.sample_seeded", noted)
    checkpoint = write_random_checkpoint(tmp_path / "thinker", "llama")
    with thinking_engine(checkpoint) as engine:
        engine.run([Ask([1, 5, 9], ThoughtParams(4), {"max_tokens": 3, "ignore_eos": True})])
    assert devices == {"cuda"}
