"""Training steps against recorded steps of the official code."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from quietstar_infer.checkpoint import END_EMBEDDING, MIXING_HEAD_PREFIX, START_EMBEDDING
from training.config import OFFICIAL, Preset, Thinking
from training.thoughts.batch import Batch, make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.reference_step import reference_step
from training.thoughts.sampling import ChooseThoughts, recorded_noise
from training.thoughts.training_step import training_step

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
CASES = ["train_n4_t2_p2", "train_n8_t4_p2", "train_n8_t4_p2_nll_only"]
TOLERANCE = 1e-5
Step = Callable[[QuietThinker, Batch, Preset, ChooseThoughts], StepOutput]
STEPS: dict[str, Step] = {"dense": reference_step, "fast": training_step}


class Case(NamedTuple):
    facts: dict[str, Any]
    expected: dict[str, Tensor]
    thinker: QuietThinker
    output: StepOutput

    def by_row(self, x_BTP: Tensor) -> Tensor:
        """(B, T, P, …) to the recordings' (R, T, …)."""
        return x_BTP.movedim(2, 1).flatten(0, 1)


def preset_of(facts: dict[str, Any]) -> Preset:
    weight = facts["policy_loss_beta"] if facts["include_policy_loss"] else 0.0
    return replace(
        OFFICIAL,
        thinking=Thinking(facts["n_ahead"] - 3, facts["n_ahead_talk"], facts["n_passes"]),
        objective=replace(OFFICIAL.objective, policy_weight=weight),
    )


@pytest.fixture(scope="module", params=[(case, step) for case in CASES for step in STEPS])
def case(request: pytest.FixtureRequest) -> Case:
    name, step = request.param
    folder = GOLDEN / name
    facts = json.loads((folder / "case.json").read_text())
    expected = load_file(folder / "expected.safetensors")
    preset = preset_of(facts)
    thinker = QuietThinker.from_checkpoint(
        folder / "checkpoint", preset.optimisation.embedding_scale
    )
    noise_KRTV = expected["gumbel_noise"]
    noise_KBTPV = noise_KRTV.unflatten(1, (-1, facts["n_passes"])).movedim(2, 3)
    batch = make_batch(expected["input_ids"], pad_token_id=2)
    output = STEPS[step](thinker, batch, preset, recorded_noise(noise_KBTPV.flatten(1, 3)))
    output.loss.backward()
    return Case(facts, expected, thinker, output)


def assert_close(actual: Tensor, recorded: Tensor, name: str) -> None:
    """max|Δ| / max|recorded|."""
    assert actual.shape == recorded.shape, name
    difference = (actual - recorded).abs().max()
    assert difference <= TOLERANCE * recorded.abs().max(), f"{name}: {difference}"


def gradient(thinker: QuietThinker, name: str) -> Tensor:
    if name in (START_EMBEDDING, END_EMBEDDING):
        parameter = thinker.get_parameter(name)
    elif name.startswith(MIXING_HEAD_PREFIX):
        parameter = thinker.mixing_head.get_parameter(name.removeprefix(MIXING_HEAD_PREFIX))
    else:
        parameter = thinker.base_model.get_parameter(name)
    assert parameter.grad is not None, name
    return parameter.grad


def test_thoughts(case: Case) -> None:
    first, last = 1, 1 + case.output.thoughts.ids.shape[-1]  # START is fed before them
    recorded_RTK = case.expected["tokens_fed"][first:last].movedim(0, -1)
    torch.testing.assert_close(case.by_row(case.output.thoughts.ids), recorded_RTK)
    log_prob_KRT = case.by_row(case.output.thoughts.log_prob).movedim(-1, 0)
    assert_close(log_prob_KRT[:, :, :-1], case.expected["action_loglik_T3"], "log p")


def test_losses(case: Case) -> None:
    output, expected = case.output, case.expected
    assert_close(output.loss.detach()[None], expected["loss"], "loss")
    assert_close(output.base_loss[None], expected["base_loss_mean"], "base loss")
    assert_close(output.talk_loss_S, expected["talk_loss_means"], "talk losses")
    assert_close(output.policy_loss[None], expected["policy_loss"], "policy loss")


def test_every_token(case: Case) -> None:
    output, expected = case.output, case.expected
    passes = case.facts["n_passes"]
    assert_close(
        output.tokens.base_nll_BT.repeat_interleave(passes, 0), expected["base_loss"], "base"
    )
    reward_RT = case.by_row(output.reward_BTP)
    recorded_RT = expected["policy_reward"]
    assert_close(reward_RT[:, : recorded_RT.shape[1]], recorded_RT, "reward")
    for s in range(case.facts["n_ahead_talk"]):
        nll_RT = case.by_row(output.tokens.talk_nll_BTPS[..., s])
        recorded_RT = expected[f"talk_loss_{s}"]
        assert_close(nll_RT[:, : recorded_RT.shape[1]], recorded_RT, f"talk {s}")
        assert not nll_RT[:, recorded_RT.shape[1] :].any()
        weight_RT = case.by_row(output.tokens.mixing_weight_BTPS[..., s])
        recorded_RT = expected["mix_weight_all"][case.facts["n_ahead"] - 2 + s]
        there = recorded_RT.shape[1] - 1 - s
        assert_close(weight_RT[:, :there], recorded_RT[:, :there], f"mixing weight {s}")


def test_every_gradient(case: Case) -> None:
    recorded = {
        name.removeprefix("grad."): tensor
        for name, tensor in case.expected.items()
        if name.startswith("grad.")
    }
    assert recorded.keys() == case.thinker.official_tensors().keys()
    for name, tensor in recorded.items():
        assert_close(gradient(case.thinker, name), tensor, name)
