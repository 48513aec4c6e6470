"""The engine on an NVIDIA GPU: the same code, with and without CUDA graphs."""

import json

import pytest
import torch

from quietstar_infer.params import ThoughtParams
from tests.support.checkpoints import GOLDEN
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
