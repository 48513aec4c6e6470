"""From the command line to HTTP: the server's log-probabilities are the trainer's."""

import json
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import httpx
import pytest
import torch
from torch import Tensor

from tests.support.checkpoints import END_ID, START_ID
from tests.support.servers import running_server
from tests.support.training.runs import small_recipe
from training.cli import main
from training.thoughts.batch import make_batch
from training.trainer.build import build
from training.trainer.export import choose_checkpoint
from training.trainer.recipe import Recipe, save_recipe

pytestmark = pytest.mark.slow

BUDGET = 2
PROMPTS = [[11, 35, 51, 10, 41], [*range(8, 24)], [30]]
PAD = 2


def greedy(logits_NV: Tensor, probability_NV: Tensor, step: int, first_row: int) -> Tensor:
    return logits_NV.argmax(dim=-1)


def ask(url: str, model: str, prompt: list[int]) -> dict[int, float]:
    """The log-probabilities of the first token after a prompt, by token id."""
    request: dict[str, object] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 5,
        "return_tokens_as_token_ids": True,
        "thought_budget": BUDGET,
    }
    response = httpx.post(f"{url}/v1/completions", json=request, timeout=300)
    assert response.status_code == 200, response.text
    (likely,) = response.json()["choices"][0]["logprobs"]["top_logprobs"]
    return {int(name.removeprefix("token_id:")): found for name, found in likely.items()}


def trainers_own(recipe: Recipe, prompt: list[int], tokens: list[int]) -> list[float]:
    """The log-probabilities that a training step finds for some next tokens."""
    model = build(recipe).model
    model.load_weights(choose_checkpoint(recipe.run.output).folder)
    # Later tokens change nothing, but a training step has to look ahead.
    texts = [[*prompt, token, *[PAD] * recipe.thinking.ahead] for token in tokens]
    mask = torch.tensor([[1] * (len(prompt) + 1) + [0] * recipe.thinking.ahead] * len(texts))
    batch = make_batch(torch.tensor(texts), PAD, attention_mask=mask)
    with torch.no_grad():
        output = model(batch, greedy)
    nll: list[float] = output.tokens.talk_nll_BTPS[:, len(prompt) - 1, 0, 0].tolist()
    return [-loss for loss in nll]


def test_the_servers_log_probabilities_are_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    recipe = small_recipe(tmp_path, optimisation={"head_learning_rate": 0.02})
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    folder = recipe.run.output / "model"
    assert json.loads((folder / "config.json").read_text())["quiet_star"]
    # Its default is greedy thoughts, since the requests do not set a temperature.
    with running_server(folder, "--default-thought-temperature", "0") as server:
        (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
        found = [ask(server.url, model["id"], prompt) for prompt in PROMPTS]
    for prompt, likely in zip(PROMPTS, found, strict=True):
        assert len(likely) >= 5
        *own, start, end = trainers_own(recipe, prompt, [*likely, START_ID, END_ID])
        # In training START's and END's logits count; a server does not sample them.
        rest = torch.log1p(-torch.tensor([start, end]).exp().sum())
        expected = torch.tensor(own) - rest
        torch.testing.assert_close(torch.tensor([*likely.values()]), expected, rtol=1e-4, atol=1e-3)
