"""The training step against the reference step, on random models of four families."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import FAMILIES, write_random_checkpoint
from tests.support.training.steps import (
    PAD,
    assert_close,
    assert_same,
    documents,
    noise,
    outcome,
    short,
    texts,
)
from training.config import OFFICIAL, PRESETS, Thinking
from training.errors import UsageError
from training.thoughts.batch import Batch, make_batch
from training.thoughts.model import QuietThinker
from training.thoughts.reference_step import reference_step
from training.thoughts.sampling import greedy_draw, random_draw
from training.thoughts.training_step import passes_for, training_step


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return write_random_checkpoint(folder, request.param)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_family_and_preset(checkpoint: Path, name: str) -> None:
    preset = short(PRESETS[name], Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(checkpoint, preset.optimisation.embedding_scale)
    batch = texts()
    dense, fast = (
        outcome(step, thinker, batch, preset) for step in (reference_step, training_step)
    )
    assert_same(fast, dense)
    assert dense.gradients.keys() == dict(thinker.named_parameters()).keys()


@pytest.mark.parametrize("batch", [texts(), documents()], ids=["texts", "documents"])
def test_a_step_without_thoughts_needs_no_paths(mistral: Path, batch: Batch) -> None:
    """What thoughts have no part in is what the reference step computes with empty thoughts and a
    closed mixing head.
    """
    preset = short(PRESETS["recommended"], Thinking(budget=0, ahead=3, per_position=1))
    objective = replace(preset.objective, base_weight=1.0, talk_weight=0.0, policy_weight=0.0)
    preset = replace(preset, objective=objective)
    assert not preset.thinks
    thinker = QuietThinker.from_checkpoint(mistral, preset.optimisation.embedding_scale)
    thinker.mixing_head.start_closed()
    dense, fast = (
        outcome(step, thinker, batch, preset) for step in (reference_step, training_step)
    )
    for found, expected in (
        (fast.output.loss, dense.output.loss),
        (fast.output.tokens.base_nll_BT, dense.output.tokens.base_nll_BT),
        (fast.output.tokens.talk_nll_BTPS, dense.output.tokens.talk_nll_BTPS),
        (fast.output.reward_BTP, dense.output.reward_BTP),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, gradient in fast.gradients.items():
        torch.testing.assert_close(gradient, dense.gradients[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_texts_of_several_documents(checkpoint: Path, name: str) -> None:
    preset = short(PRESETS[name], Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(checkpoint, preset.optimisation.embedding_scale)
    dense = outcome(reference_step, thinker, documents(), preset)
    for passes in (1, 4):
        assert_same(outcome(training_step, thinker, documents(), preset, passes=passes), dense)


def test_a_packed_document_is_what_it_is_alone(checkpoint: Path) -> None:
    """Same thoughts, losses and rewards, also where it looks ahead to its end; same gradients."""
    thinking = Thinking(budget=3, ahead=3)
    preset = short(PRESETS["recommended"], thinking)
    thinker = QuietThinker.from_checkpoint(checkpoint, 1.0)
    generator = torch.Generator().manual_seed(2)
    lengths = (7, 5, 6)
    ids_BT = torch.randint(3, 60, (1, sum(lengths)), generator=generator)
    start_BT = torch.tensor([[0] * 7 + [7] * 5 + [12] * 6])
    alone_BT = ids_BT.new_full((3, 7), PAD)
    for row, part in zip(alone_BT, ids_BT[0].split(lengths), strict=True):
        row[: len(part)] = part
    outputs, gradients = [], []
    for batch in (
        make_batch(ids_BT, PAD, document_start=start_BT),
        make_batch(alone_BT, PAD, attention_mask=alone_BT != PAD),
    ):
        thinker.zero_grad()
        output = training_step(thinker, batch, preset, greedy_draw)
        output.loss.backward()
        outputs.append(output)
        gradients.append({n: p.grad for n, p in thinker.named_parameters() if p.grad is not None})
    packed, alone = outputs
    assert_close(packed.loss.detach(), alone.loss.detach(), "loss", least=1)
    at = 0
    for row, length in enumerate(lengths):
        inside = slice(at, at + length - 1)
        for name in ("base_nll_BT", "talk_nll_BTPS", "mixing_weight_BTPS"):
            found, wanted = (getattr(x.tokens, name) for x in outputs)
            assert_close(found[0, inside], wanted[row, : length - 1], name)
        assert_close(
            packed.reward_BTP[0, inside], alone.reward_BTP[row, : length - 1], "reward", least=1
        )
        assert torch.equal(packed.thoughts.ids[0, inside], alone.thoughts.ids[row, : length - 1])
        at += length
    for name, gradient in gradients[1].items():
        assert_close(gradients[0][name], gradient, name)


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
        outcome(training_step, thinker, batch, preset),
        outcome(reference_step, thinker, batch, preset),
    )


@pytest.mark.parametrize(("tokens", "passes"), [(1, 11), (40, 4), (10**6, 1)])
def test_the_number_of_passes_follows_from_the_tokens(tokens: int, passes: int) -> None:
    # 2 sequences, 2 thoughts, START, END and one true token: 12 tokens of each position.
    assert passes_for(texts(), Thinking(budget=0, ahead=2), tokens) == passes


def test_without_gradients(mistral: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    batch = texts()
    with torch.no_grad():
        output = training_step(thinker, batch, preset, noise(batch, preset.thinking))
    assert not output.loss.requires_grad
    assert_close(output.loss, outcome(training_step, thinker, batch, preset).output.loss, "loss")


def test_padding_changes_nothing(mistral: Path) -> None:
    """With means over real targets, a text gives what it gives without its padding."""
    preset = short(PRESETS["recommended"], Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    ids_BT = texts(1).input_ids_BT
    pads = ids_BT.new_full((1, 4), PAD)
    plain = outcome(training_step, thinker, make_batch(ids_BT, PAD), preset)
    padded = outcome(training_step, thinker, make_batch(torch.cat([ids_BT, pads], 1), PAD), preset)
    assert_close(padded.output.loss.detach(), plain.output.loss.detach(), "loss")
    for name, gradient in plain.gradients.items():
        assert_close(padded.gradients[name], gradient, name)


def test_bfloat16_compute_trains_float32_masters(mistral: Path) -> None:
    preset = short(PRESETS["recommended"], Thinking(budget=2, ahead=2))
    thinker = QuietThinker.from_checkpoint(mistral)
    exact = outcome(training_step, thinker, texts(), preset)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = outcome(training_step, thinker, texts(), preset)
    assert rounded.output.loss.dtype == torch.float32
    torch.testing.assert_close(rounded.output.base_loss, exact.output.base_loss, rtol=0.1, atol=0)
    for name, gradient in rounded.gradients.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name


def test_mixing_weights_are_the_reference_decoders(checkpoint: Path) -> None:
    """Training computes at a position what decoding computes there."""
    preset = short(OFFICIAL, Thinking(budget=3, ahead=2))
    batch = make_batch(texts(1).input_ids_BT, PAD)
    choose = noise(batch, preset.thinking)
    output = training_step(QuietThinker.from_checkpoint(checkpoint), batch, preset, choose)
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


def test_texts_too_short_or_too_long_are_refused(mistral: Path) -> None:
    thinker = QuietThinker.from_checkpoint(mistral)
    for step in (training_step, reference_step):
        with pytest.raises(UsageError, match="too short to look 4 tokens ahead"):
            step(thinker, texts(positions=5), OFFICIAL, random_draw())
    thinker.base_model.config.sliding_window = 8
    with pytest.raises(UsageError, match="sliding window of 8"):
        training_step(thinker, texts(), OFFICIAL, random_draw())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu(mistral: Path) -> None:
    preset = short(OFFICIAL, Thinking(budget=3, ahead=3))
    thinker = QuietThinker.from_checkpoint(mistral)
    batch = texts()
    on_cpu = outcome(training_step, thinker, batch, preset)
    moved = Batch(batch.input_ids_BT.cuda(), batch.labels_BT.cuda(), PAD)
    thought_ids_KN = on_cpu.output.thoughts.ids.flatten(0, 2).T.cuda()
    thinker.zero_grad()
    thinker.cuda()
    output = training_step(
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
