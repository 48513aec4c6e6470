"""Slots are given to requests and taken back."""

import torch

from quietstar_infer.gate import GateConfig, ThoughtGate
from quietstar_infer.vllm_plugin.slots import ThoughtSlots
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs, upload


def test_a_slot_is_held_until_it_is_released() -> None:
    slots = ThoughtSlots(2, 3, (8, 9), 4, torch.float32, torch.device("cpu"))
    a, b = slots.acquire("a"), slots.acquire("b")
    assert {a, b} == {0, 1}
    assert slots.acquire("a") == a
    slots.release("a")
    slots.release("a")
    assert len(slots) == 1
    assert slots.acquire("c") == a


def test_a_given_thought_is_there_until_its_slot_is_released() -> None:
    slots = ThoughtSlots(1, 3, (8, 9), 4, torch.float32, torch.device("cpu"))
    slots.give("a", (5, 6))
    assert slots.token_SC.tolist() == [[8, 5, 6, 0, 9]]
    assert slots.num_given(slots.acquire("a")) == 2
    slots.release("a")
    assert slots.num_given(slots.acquire("b")) == 0


def test_meta_tokens_lie_at_both_ends() -> None:
    slots = ThoughtSlots(2, 3, (8, 9), 4, torch.bfloat16, torch.device("cpu"))
    assert slots.token_SC.tolist() == [[8, 0, 0, 0, 9]] * 2
    assert slots.end_column == 4
    assert slots.base_SH.shape == (2, 4)


def test_compiled_slots_keep_and_feed_what_they_do_uncompiled() -> None:
    cpu = torch.device("cpu")
    gate = ThoughtGate(40, GateConfig(24, budgets=(2, 4))).tensors
    compiled, plain = (ThoughtSlots(7, 4, (8, 9), 40, torch.float32, cpu) for _ in range(2))
    compiled.warm_up(gate)
    with torch.inference_mode():
        for rows, tokens in [(1, 1), (1, 5), (2, 2), (5, 5), (5, 8)]:
            hidden_NH, gains, fed = torch.randn(tokens, 40), [], []
            packed = upload(
                [
                    ThoughtInputs(row, tokens - 1 - row, 6 - row, row, 0, 0, 0)
                    for row in range(rows)
                ],
                cpu,
            )
            for slots in (compiled, plain):
                slots.token_SC[:, 1:5] = torch.arange(28, dtype=torch.int32).reshape(7, 4)
                gains.append(slots.judge(hidden_NH, packed, gate))
                fed.append(torch.zeros(tokens, dtype=torch.int32))
                slots.feed(fed[-1], packed)
            torch.testing.assert_close(*gains)
            assert torch.equal(*fed)
            assert torch.equal(compiled.base_SH, plain.base_SH)
            assert len(gains[0]) == rows
    assert plain.base_SH.count_nonzero() > 0
