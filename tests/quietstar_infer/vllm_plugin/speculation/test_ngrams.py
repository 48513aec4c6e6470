"""Drafts are what the thought itself would choose, if its logits were those of then."""

import random

import numpy as np
import pytest
import torch

from quietstar_infer.sampling import draw_thought_tokens
from quietstar_infer.vllm_plugin.speculation.ngrams import (
    NUM_CANDIDATES,
    ORDERS,
    DraftRequests,
    ThoughtNgrams,
)


def slot(*tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """A slot's tokens: START, those of the thought, and empty columns."""
    return np.array([[99, *tokens, *[0] * (10 - len(tokens))]], dtype=np.int32)


def learn(ngrams: ThoughtNgrams, tokens: list[int], likeliest: int) -> None:
    """After these tokens this one was the likeliest, far before all others."""
    candidate_UK = np.array([[likeliest, *range(100, 99 + NUM_CANDIDATES)]])
    logit_UK = np.array([[50.0, *[0.0] * (NUM_CANDIDATES - 1)]], dtype=np.float32)
    ngrams.learn(
        slot(*tokens), np.zeros(1, np.int64), np.array([len(tokens)]), candidate_UK, logit_UK
    )


def requests(
    known: int, budget: int, seed: int = 0, position: int = 0, temperature: float = 0.0
) -> DraftRequests:
    return DraftRequests(
        known_R=np.array([known]),
        budget_R=np.array([budget]),
        seed_R=np.array([seed]),
        position_R=np.array([position]),
        temperature_R=np.array([temperature], dtype=np.float32),
    )


def test_a_draft_follows_the_longest_context_that_has_been_seen() -> None:
    ngrams = ThoughtNgrams()
    learn(ngrams, [1, 2, 3], 4)
    learn(ngrams, [7, 3], 5)  # the last one after 3, and after so many tokens
    for tokens, drafted, length in (
        ([1, 2, 3], 4, 3),
        ([8, 2, 3], 4, 2),
        ([8, 3], 5, 1),
        ([8, 8], 5, 0),
    ):
        token_RD, order_RD, number_R = ngrams.draft(slot(*tokens), requests(len(tokens), 9))
        assert number_R[0] >= 1
        assert token_RD[0, 0] == drafted
        assert ORDERS[order_RD[0, 0]] == length
    _, _, number_R = ngrams.draft(slot(1), requests(1, 9))
    assert number_R.tolist() == [0]  # nothing has been seen after one token, whichever


def test_drafts_follow_each_other_up_to_the_budget() -> None:
    ngrams = ThoughtNgrams()
    thought = [5, 6, 7, 4, 8, 9]
    for known, token in enumerate(thought):
        learn(ngrams, thought[:known], token)
    for known in range(len(thought)):
        token_RD, _, number_R = ngrams.draft(slot(*thought[:known]), requests(known, 5))
        number = max(0, 5 - known)
        assert number_R.tolist() == [number]
        assert token_RD[0, :number].tolist() == thought[known:5]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_draft_has_the_noise_of_the_place_that_it_is_for(temperature: float) -> None:
    draw = random.Random(0)
    torch.manual_seed(0)
    for _ in range(200):
        ngrams, known = ThoughtNgrams(), draw.randrange(8)
        seed, position = draw.randrange(2**63), draw.randrange(5000)
        logits_1V = 2 * torch.randn(1, NUM_CANDIDATES)
        logit_UK, candidate_UK = logits_1V.topk(NUM_CANDIDATES)
        tokens = slot(*range(known))
        ngrams.learn(
            tokens,
            np.zeros(1, np.int64),
            np.array([known]),
            candidate_UK.numpy(),
            logit_UK.numpy(),
        )
        where = requests(known, known + 1, seed, position, temperature)
        token_RD, _, _ = ngrams.draft(tokens, where)
        noise = (torch.tensor([number]) for number in (seed, position, known))
        expected = draw_thought_tokens(logits_1V, torch.tensor([temperature]), *noise)
        assert token_RD[0, 0] == int(expected)
