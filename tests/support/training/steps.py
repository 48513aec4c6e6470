"""Training steps on small random models: their batches, and the comparison of two steps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.support.checkpoints import VOCAB_SIZE
from training.config import Preset, Thinking
from training.thoughts.batch import IGNORED, Batch, make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.sampling import ChooseThoughts, recorded_noise

TOLERANCE = 1e-5
PAD = 2
Step = Callable[..., StepOutput]


class Outcome(NamedTuple):
    output: StepOutput
    gradients: dict[str, Tensor]


def texts(sequences: int = 2, positions: int = 11) -> Batch:
    """Random texts; the second has padding and tokens that are not to be learnt."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(3, VOCAB_SIZE - 2, (sequences, positions), generator=generator)
    ids_BT[1:, -3:] = PAD
    labels_BT = ids_BT.clone()
    labels_BT[1:, 2:4] = IGNORED
    return make_batch(ids_BT, PAD, labels_BT)


def documents() -> Batch:
    """The same texts, the first of three documents, one of them a single token, and the second of
    two.
    """
    batch = texts()
    start_BT = torch.zeros_like(batch.input_ids_BT)
    start_BT[0, 5:], start_BT[0, 6:], start_BT[1, 4:] = 5, 6, 4
    return batch._replace(document_start_BT=start_BT)


def noise(batch: Batch, thinking: Thinking) -> ChooseThoughts:
    """Noise that does not change for the first texts when others follow."""
    rows = batch.input_ids_BT.numel() * thinking.per_position
    uniform_NKV = torch.rand(
        (rows, thinking.budget, VOCAB_SIZE), generator=torch.Generator().manual_seed(1)
    )
    return recorded_noise(-(-uniform_NKV.movedim(0, 1).log()).log())


def outcome(
    step: Step, thinker: QuietThinker, batch: Batch, preset: Preset, **options: Any
) -> Outcome:
    thinker.zero_grad()
    output = step(thinker, batch, preset, noise(batch, preset.thinking), **options)
    output.loss.backward()
    return Outcome(
        output,
        {name: p.grad for name, p in thinker.named_parameters() if p.grad is not None},
    )


def assert_close(actual: Tensor, expected: Tensor, name: str, least: float = 1e-3) -> None:
    """max|Δ| / max|expected|; `least` is the size of what the rounding comes from."""
    assert actual.shape == expected.shape, name
    difference = (actual - expected).abs().max() if expected.numel() else torch.tensor(0.0)
    assert difference <= TOLERANCE * expected.abs().max().clamp(min=least), f"{name}: {difference}"


def assert_same(actual: Outcome, expected: Outcome) -> None:
    torch.testing.assert_close(actual.output.thoughts.ids, expected.output.thoughts.ids)
    for name in ("base_nll_BT", "talk_nll_BTPS", "mixing_weight_BTPS"):
        found, wanted = (getattr(x.output.tokens, name) for x in (actual, expected))
        assert_close(found, wanted, name)
    for name in ("loss", "base_loss", "talk_loss_S", "policy_loss", "reward_BTP"):
        found, wanted = (getattr(x.output, name).detach() for x in (actual, expected))
        assert_close(found, wanted, name, least=1)  # sums of terms of both signs
    if actual.output.thoughts.ids.numel():
        assert_close(actual.output.thoughts.log_prob, expected.output.thoughts.log_prob, "log p")
        assert_close(actual.output.thoughts.entropy, expected.output.thoughts.entropy, "entropy")
    assert actual.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        assert_close(actual.gradients[name], gradient, name)


def short(preset: Preset, thinking: Thinking) -> Preset:
    return replace(preset, thinking=thinking)
