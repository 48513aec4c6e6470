"""The choice of thought tokens is compiled once, and says what it says uncompiled."""

import torch
from torch._dynamo import config as dynamo_config

from quietstar_infer.sampling import draw_thought_tokens
from quietstar_infer.vllm_plugin.thought_sampler import Choice, Fed, bits_of, sampled, upload

VOCAB_SIZE = 50
CPU = torch.device("cpu")


def fed(rows: int, batch: int, temperature: float = 1.0) -> list[Fed]:
    """The last rows of a batch, in mid-thought."""
    bits = bits_of(temperature)
    return [
        Fed(batch - 1 - row, row, slot, row % 5, 2**40 + row, 100 + row, bits)
        for row, slot in enumerate(reversed(range(rows)))
    ]


def logits(batch: int) -> torch.Tensor:
    return torch.randn(batch, VOCAB_SIZE, generator=torch.Generator().manual_seed(batch))


def memory() -> torch.Tensor:
    return torch.zeros(16, 10, dtype=torch.int32)


@torch.inference_mode()
def test_one_compilation_does_for_any_number_of_rows() -> None:
    compiled, plain = Choice(is_compiled=True), Choice(is_compiled=False)
    with dynamo_config.patch(error_on_recompile=True):
        compiled.warm_up(VOCAB_SIZE, torch.float32, memory())
        for rows, batch in [(1, 1), (1, 4), (2, 2), (8, 8), (8, 16), (16, 16)]:
            kept, expected_kept = memory(), memory()
            packed = upload(fed(rows, batch), CPU)
            chosen = compiled(logits(batch), packed, kept, is_greedy=False)
            expected = plain(logits(batch), packed, expected_kept, is_greedy=False)
            assert torch.equal(chosen, expected)
            assert torch.equal(kept, expected_kept)


def test_a_choice_is_a_draw_and_is_kept_for_the_next_pass() -> None:
    kept, rows = memory(), fed(3, 5, temperature=0.7)
    chosen = sampled(logits(5), upload(rows, CPU), kept)
    for token, each in zip(chosen.tolist(), rows, strict=True):
        where = (torch.tensor([number]) for number in (each.seed, each.position, each.column))
        alone = draw_thought_tokens(logits(5)[[each.row]], torch.tensor([0.7]), *where)
        assert token == alone.item()
        assert kept[each.slot, each.column + 1] == token
    assert kept.count_nonzero() == chosen.count_nonzero()


def test_greedy_rows_choose_the_likeliest_in_any_company() -> None:
    batch = logits(6)
    packed = upload([*fed(3, 6, temperature=0.0), *fed(2, 2, temperature=1.0)], CPU)
    mixed = sampled(batch, packed, memory())[:3]
    greedy = Choice(is_compiled=False)(batch, packed[:3], memory(), is_greedy=True)
    assert torch.equal(mixed, greedy)
    assert greedy.tolist() == batch.argmax(dim=1)[packed[:3, 0]].tolist()
