"""The official way of generating, against the reference decoder and recorded runs."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.engine.official import OfficialLoop, likeliest
from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import GOLDEN


@pytest.mark.parametrize("budget", [1, 5])
def test_logits_are_the_reference_decoders_at_every_position(budget: int) -> None:
    folder = GOLDEN / "engine_greedy_n8" / "checkpoint"
    loop = OfficialLoop.from_checkpoint(folder, torch.device("cpu"), torch.float32)
    passes: list[tuple[int, ...]] = []
    loop.base_model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["inputs_embeds"].shape)),
        with_kwargs=True,
    )
    decoder = ReferenceDecoder.from_checkpoint(folder)
    text_BT = torch.tensor([[1, 5, 9, 33, 20, 11], [1, 7, 7, 40, 30, 22]])
    logits_BTV = loop.predict(text_BT, budget, likeliest)
    # The official n_ahead: text, START, thought tokens, END, each at all positions.
    assert passes == [(2, 6, decoder.model.config.hidden_size)] * (budget + 3)
    for text, logits_TV in zip(text_BT.tolist(), logits_BTV, strict=True):
        for position, logits_V in enumerate(logits_TV):
            expected = decoder.predict(text[: position + 1], budget).logits_V
            torch.testing.assert_close(logits_V, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["greedy_n4", "greedy_n8"])
def test_recorded_generations_are_repeated(name: str) -> None:
    folder = GOLDEN / name
    budget = json.loads((folder / "case.json").read_text())["n_ahead"] - 3
    loop = OfficialLoop.from_checkpoint(folder / "checkpoint", torch.device("cpu"), torch.float32)
    generation = json.loads((folder / "generation.json").read_text())["generations"][0]
    text = list(generation["input_ids"])
    for expected in generation["new_tokens"][:8]:
        logits_BTV = loop.predict(torch.tensor([text]), budget, likeliest)
        text.append(int(logits_BTV[0, -1].argmax()))
        assert text[-1] == expected


def test_visible_tokens_are_sampled(checkpoint: Path) -> None:
    loop = OfficialLoop.from_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    text_BT = torch.tensor([[1, 5, 9]])
    texts = {tuple(loop.generate(text_BT, 2, budget=1)[0].tolist()) for _ in range(20)}
    assert {len(text) for text in texts} == {5}
    assert len(texts) > 1
