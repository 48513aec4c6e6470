"""The fast training step against the dense one, on random models of four families."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor
from transformers import Olmo2Config, Olmo2ForCausalLM

from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import FAMILIES, VOCAB_SIZE, write_random_checkpoint
from training.config import OFFICIAL, PRESETS, Preset, Thinking
from training.errors import UsageError
from training.kernels.activation_checkpointing import recompute
from training.thoughts.batch import IGNORED, Batch, make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.outputs import StepOutput
from training.thoughts.reference_step import dense_step
from training.thoughts.sampling import ChooseThoughts, draw, recorded_noise
from training.thoughts.training_step import fast_step, passes_for
from training.trainer.recipe import Recompute

TOLERANCE = 1e-5
PAD = 2
Step = Callable[..., StepOutput]


class Outcome(NamedTuple):
    output: StepOutput
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return write_random_checkpoint(folder, request.param)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


def texts(sequences: int = 2, positions: int = 11) -> Batch:
    """Random texts; the second has padding and tokens that are not to be learnt."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(3, VOCAB_SIZE - 2, (sequences, positions), generator=generator)
    ids_BT[1:, -3:] = PAD
    labels_BT = ids_BT.clone()
    labels_BT[1:, 2:4] = IGNORED
    return make_batch(ids_BT, PAD, labels_BT)


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


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_family_and_preset(checkpoint: Path, name: str) -> None:
    preset = short(PRESETS[name], Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(checkpoint, preset.optimisation.embedding_scale)
    batch = texts()
    dense, fast = (outcome(step, thinker, batch, preset) for step in (dense_step, fast_step))
    assert_same(fast, dense)
    assert dense.gradients.keys() == dict(thinker.named_parameters()).keys()


@pytest.mark.parametrize(
    ("thinking", "positions"),
    [
        (Thinking(budget=0, ahead=2), 11),
        (Thinking(budget=1, ahead=1, per_position=1), 11),
        (Thinking(budget=2, ahead=4, per_position=3), 11),
        (Thinking(budget=6, ahead=3), 5),  # as short as may be
    ],
)
def test_other_shapes_of_thoughts(mistral: Path, thinking: Thinking, positions: int) -> None:
    preset = short(OFFICIAL, thinking)
    thinker = QuietThinker.from_checkpoint(mistral)
    batch = texts(positions=positions)
    assert_same(
        outcome(fast_step, thinker, batch, preset), outcome(dense_step, thinker, batch, preset)
    )


@pytest.mark.parametrize("passes", [1, 4, 11, 13])  # of 11 positions
@pytest.mark.parametrize("what", get_args(Recompute))
def test_the_same_in_passes_and_with_activations_computed_again(
    mistral: Path, passes: int, what: Recompute
) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral).train()
    batch = texts()
    whole = outcome(fast_step, thinker, batch, preset)
    recompute(thinker.trunk, what)
    assert_same(outcome(fast_step, thinker, batch, preset, passes=passes), whole)


@pytest.mark.parametrize(("tokens", "passes"), [(1, 11), (40, 4), (10**6, 1)])
def test_passes_are_of_so_many_tokens(tokens: int, passes: int) -> None:
    # 2 sequences, 2 thoughts, START, END and one true token: 12 tokens of each position.
    assert passes_for(texts(), Thinking(budget=0, ahead=2), tokens) == passes


def test_less_is_kept_the_more_is_computed_again(checkpoint: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    kept = []
    for what in get_args(Recompute):
        thinker = QuietThinker.from_checkpoint(checkpoint).train()
        recompute(thinker.trunk, what)
        kept.append(bytes_kept(partial(fast_step, thinker, texts(), preset, draw())))
    nothing, mlp, layer = kept
    assert layer < 0.6 * mlp
    assert mlp < 0.75 * nothing


def test_a_norm_that_is_not_before_the_feed_forward_part() -> None:
    """OLMo 2 norms what attention puts out, under the name that others have for what goes in."""
    torch.manual_seed(0)
    config = Olmo2Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=PAD,
    )
    trunk = Olmo2ForCausalLM(config).train()
    ids = torch.arange(3, 15)[None]
    found = []
    for what in ("nothing", "mlp"):
        recompute(trunk, what)
        trunk.zero_grad()
        trunk(ids, labels=ids).loss.backward()
        found.append(
            {name: p.grad.clone() for name, p in trunk.named_parameters() if p.grad is not None}
        )
    torch.testing.assert_close(*found)


def bytes_kept(step: Callable[[], StepOutput]) -> int:
    """The size of all that autograd keeps of a step."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()
    assert output.loss.requires_grad
    return sum(sizes.values())


def test_reentrant_checkpointing_is_refused(mistral: Path) -> None:
    thinker = QuietThinker.from_checkpoint(mistral).train()
    thinker.trunk.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(UsageError, match="use_reentrant=False"):
        fast_step(thinker, texts(), short(OFFICIAL, Thinking(budget=1, ahead=1)), draw())


def test_without_gradients(mistral: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    batch = texts()
    with torch.no_grad():
        output = fast_step(thinker, batch, preset, noise(batch, preset.thinking))
    assert not output.loss.requires_grad
    assert_close(output.loss, outcome(fast_step, thinker, batch, preset).output.loss, "loss")


def test_padding_changes_nothing(mistral: Path) -> None:
    """With means over real targets, a text gives what it gives without its padding."""
    preset = short(PRESETS["recommended"], Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    ids_BT = texts(1).input_ids_BT
    pads = ids_BT.new_full((1, 4), PAD)
    plain = outcome(fast_step, thinker, make_batch(ids_BT, PAD), preset)
    padded = outcome(fast_step, thinker, make_batch(torch.cat([ids_BT, pads], 1), PAD), preset)
    assert_close(padded.output.loss.detach(), plain.output.loss.detach(), "loss")
    for name, gradient in plain.gradients.items():
        assert_close(padded.gradients[name], gradient, name)


def test_bfloat16_compute_trains_float32_masters(mistral: Path) -> None:
    preset = short(PRESETS["recommended"], Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    exact = outcome(fast_step, thinker, texts(), preset)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = outcome(fast_step, thinker, texts(), preset)
    assert rounded.output.loss.dtype == torch.float32
    torch.testing.assert_close(rounded.output.base_loss, exact.output.base_loss, rtol=0.1, atol=0)
    for name, gradient in rounded.gradients.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name


def test_the_step_thinks_as_the_reference_decoder(checkpoint: Path) -> None:
    """What training computes at a position is what decoding computes there."""
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    batch = make_batch(texts(1).input_ids_BT, PAD)
    choose = noise(batch, preset.thinking)
    output = fast_step(QuietThinker.from_checkpoint(checkpoint), batch, preset, choose)
    decoder = ReferenceDecoder.from_checkpoint(checkpoint)
    ids = batch.input_ids_BT[0].tolist()
    for position in range(len(ids) - 1):
        thought_ids = output.thoughts.ids[0, position, 0].tolist()

        def known(logits_V: Tensor, at: int, step: int, ids: list[int] = thought_ids) -> int:
            return ids[step]

        prediction = decoder.predict(ids[: position + 1], preset.thinking.budget, known)
        assert prediction.mixing_weight == pytest.approx(
            output.tokens.mixing_weight_BTPS[0, position, 0, 0].item(), abs=1e-4
        )


def test_texts_that_cannot_be_thought_about_are_refused(mistral: Path) -> None:
    thinker = QuietThinker.from_checkpoint(mistral)
    for step in (fast_step, dense_step):
        with pytest.raises(UsageError, match="too short to look 4 tokens ahead"):
            step(thinker, texts(positions=5), OFFICIAL, draw())
    thinker.trunk.config.sliding_window = 8
    with pytest.raises(UsageError, match="sliding window of 8"):
        fast_step(thinker, texts(), OFFICIAL, draw())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu(mistral: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(mistral)
    batch = texts()
    on_cpu = outcome(fast_step, thinker, batch, preset)
    moved = Batch(batch.input_ids_BT.cuda(), batch.labels_BT.cuda(), PAD)
    thought_ids_KN = on_cpu.output.thoughts.ids.flatten(0, 2).T.cuda()
    thinker.zero_grad()
    thinker.cuda()
    output = fast_step(
        thinker,
        moved,
        preset,
        lambda logits, probability, step, first: thought_ids_KN[step, first : first + len(logits)],
    )
    output.loss.backward()
    # A sum over thousands of tokens, added in another order than on the CPU.
    torch.testing.assert_close(
        output.loss.detach().cpu(), on_cpu.output.loss.detach(), rtol=1e-5, atol=0
    )
