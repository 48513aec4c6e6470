"""Slots are given to requests and taken back."""

import torch

from quietstar_infer.vllm_plugin.slots import ThoughtSlots


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
