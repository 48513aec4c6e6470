"""The sampler of thought tokens is compiled once, and gives what it gives uncompiled."""

import pytest
import torch
from torch._dynamo import config as dynamo_config
from vllm.model_executor.layers.vocab_parallel_embedding import pad_vocab_size

from quietstar_infer.sampling import draw_thought_tokens
from quietstar_infer.vllm_plugin.thought_sampler import (
    ThoughtInputs,
    ThoughtSampler,
    bits_of,
    sample_seeded,
    upload,
)

VOCAB_SIZE = 50
CPU = torch.device("cpu")


def thought_inputs(rows: int, batch: int, temperature: float = 1.0) -> list[ThoughtInputs]:
    """Of the last rows of a batch, in mid-thought."""
    bits = bits_of(temperature)
    return [
        ThoughtInputs(batch - 1 - row, row, slot, row % 5, 2**40 + row, 100 + row, bits)
        for row, slot in enumerate(reversed(range(rows)))
    ]


def logits(batch: int, vocab_size: int = VOCAB_SIZE) -> torch.Tensor:
    """In the layout that vLLM's language-model head gives them, which pads the vocabulary."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, pad_vocab_size(vocab_size), generator=generator)[:, :vocab_size]


# As in the engine, where slots are made before inference begins.
@torch.inference_mode(False)
def slot_tokens() -> torch.Tensor:
    return torch.zeros(16, 10, dtype=torch.int32)


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, 64])
def test_one_compilation_serves_any_number_of_rows(vocab_size: int) -> None:
    assert (vocab_size == 64) == logits(2, vocab_size).is_contiguous()
    compiled, eager = ThoughtSampler(is_compiled=True), ThoughtSampler(is_compiled=False)
    compiled.warm_up(vocab_size, torch.float32, slot_tokens())
    # The engine runs in inference mode.
    with torch.inference_mode(), dynamo_config.patch(error_on_recompile=True):
        for rows, batch in [(1, 1), (1, 4), (2, 2), (8, 8), (8, 16), (16, 16)]:
            for is_greedy in (False, True):
                kept, expected_kept = slot_tokens(), slot_tokens()
                packed = upload(thought_inputs(rows, batch), CPU)
                sampled = compiled(logits(batch, vocab_size), packed, kept, is_greedy)
                expected = eager(logits(batch, vocab_size), packed, expected_kept, is_greedy)
                assert torch.equal(sampled, expected)
                assert torch.equal(kept, expected_kept)


def test_a_token_is_drawn_and_kept_in_its_slot_for_the_next_pass() -> None:
    kept, rows = slot_tokens(), thought_inputs(3, 5, temperature=0.7)
    sampled = sample_seeded(logits(5), upload(rows, CPU), kept)
    for token, each in zip(sampled.tolist(), rows, strict=True):
        where = (torch.tensor([number]) for number in (each.seed, each.position, each.column))
        alone = draw_thought_tokens(logits(5)[[each.row]], torch.tensor([0.7]), *where)
        assert token == alone.item()
        assert kept[each.slot, each.column + 1] == token
    assert kept.count_nonzero() == sampled.count_nonzero()


@pytest.mark.parametrize("is_greedy", [False, True])
def test_given_tokens_stay_as_they_are(is_greedy: bool) -> None:
    """In two of three rows, of which one has only its first two tokens given."""
    temperature = 0.0 if is_greedy else 1.0
    rows = thought_inputs(3, 3, temperature)
    given = [each._replace(num_given=number) for each, number in zip(rows, (9, 2, 0), strict=True)]
    sampler, kept, plain = ThoughtSampler(is_compiled=False), slot_tokens(), slot_tokens()
    kept += 49
    sampled = sampler(logits(3), upload(rows, CPU), plain, is_greedy).tolist()
    assert 49 not in sampled
    packed = upload(given, CPU)
    # They are behind the tokens in columns 0, 1 and 2.
    assert sampler(logits(3), packed, kept, is_greedy).tolist() == [49, 49, sampled[2]]
    assert [int(kept[each.slot, each.column + 1]) for each in rows] == [49, 49, sampled[2]]


def test_greedy_rows_get_the_likeliest_token_in_any_batch() -> None:
    batch = logits(6)
    greedy_rows = thought_inputs(3, 6, temperature=0.0)
    packed = upload([*greedy_rows, *thought_inputs(2, 2, temperature=1.0)], CPU)
    mixed = sample_seeded(batch, packed, slot_tokens())[:3]
    sampler = ThoughtSampler(is_compiled=False)
    greedy = sampler(batch, packed[:3], slot_tokens(), is_greedy=True)
    assert torch.equal(mixed, greedy)
    assert greedy.tolist() == batch.argmax(dim=1)[packed[:3, 0]].tolist()
