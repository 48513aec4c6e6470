"""Drafts are what the thought itself would choose, if its logits were those of then."""

import random

import numpy as np
import numpy.typing as npt
import pytest
import torch

from quietstar_infer.sampling import draw_thought_tokens
from quietstar_infer.vllm_plugin.speculation.ngrams import (
    NUM_CANDIDATES,
    NUM_KINDS,
    ORDERS,
    NgramTable,
    draft_token,
    learn_token,
)

VOCABULARY = 130


def slot(*tokens: int) -> npt.NDArray[np.int32]:
    """A slot's tokens: START, those of the thought, and empty columns."""
    return np.array([99, *tokens, *[0] * (10 - len(tokens))], dtype=np.int32)


class Taught:
    """A table, and which tokens the model has borne."""

    def __init__(self) -> None:
        self.table = NgramTable.empty()
        self.is_borne_V = np.zeros(VOCABULARY, dtype=np.bool_)

    def learn(self, tokens: list[int], logits_V: npt.NDArray[np.float32]) -> None:
        learn_token(self.table, self.is_borne_V, slot(*tokens), len(tokens), logits_V)

    def learn_likeliest(self, tokens: list[int], likeliest: int, logit: float = 50.0) -> None:
        """After these tokens this one was the likeliest, far before all others."""
        logits_V = np.zeros(VOCABULARY, dtype=np.float32)
        logits_V[likeliest] = logit
        self.learn(tokens, logits_V)

    def draft(
        self, tokens: list[int], seed: int = 0, position: int = 0, temperature: float = 0.0
    ) -> tuple[int, int]:
        """Its kind, and the token."""
        kind, token = draft_token(
            self.table, slot(*tokens), len(tokens), seed, position, np.float32(temperature)
        )
        return int(kind), int(token)


def test_a_draft_follows_the_longest_context_that_has_been_seen() -> None:
    taught = Taught()
    taught.learn_likeliest([1, 2, 3], 4)
    taught.learn_likeliest([7, 3], 5)  # the last one after 3, and after so many tokens
    levels = NUM_KINDS // len(ORDERS)
    for tokens, drafted, length in (
        ([1, 2, 3], 4, 3),
        ([8, 2, 3], 4, 2),
        ([8, 3], 5, 1),
        ([8, 8], 5, 0),
    ):
        kind, token = taught.draft(tokens)
        assert token == drafted
        assert ORDERS[kind // levels] == length
    # Nothing has been seen after one token, whichever.
    assert taught.draft([1])[0] == -1


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_draft_has_the_noise_of_the_place_that_it_is_for(temperature: float) -> None:
    draw, generator = random.Random(0), np.random.default_rng(0)
    for _ in range(200):
        taught, known = Taught(), draw.randrange(8)
        seed, position = draw.randrange(2**63), draw.randrange(5000)
        logits_V = np.full(VOCABULARY, -100, dtype=np.float32)
        logits_V[:NUM_CANDIDATES] = 2 * generator.standard_normal(NUM_CANDIDATES)
        tokens = list(range(known))
        taught.learn(tokens, logits_V)
        _, token = taught.draft(tokens, seed, position, temperature)
        noise = (torch.tensor([number]) for number in (seed, position, known))
        logits_1V = torch.from_numpy(logits_V)[None]
        expected = draw_thought_tokens(logits_1V, torch.tensor([temperature]), *noise)
        assert token == int(expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_kind_says_how_far_it_is_before_the_next(temperature: float) -> None:
    kinds = []
    for logit in (0.1, 0.3, 0.7, 1.5, 3.0, 90.0):
        taught = Taught()
        taught.learn_likeliest([1], 5, logit)
        kinds.append(taught.draft([1], temperature=temperature)[0])
    if temperature == 0:
        assert kinds == list(range(kinds[0], kinds[0] + 6))
    assert kinds[-1] == max(kinds)
    assert all(0 <= kind < NUM_KINDS for kind in kinds)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 5, VOCABULARY - 1])
def test_nothing_is_learnt_from_numbers_that_are_not_finite(value: float, place: int) -> None:
    taught = Taught()
    taught.learn_likeliest([1], 5)
    broken_V = np.zeros(VOCABULARY, dtype=np.float32)
    broken_V[7], broken_V[place] = 9.0, value
    taught.learn([1], broken_V)
    taught.learn([2], broken_V)
    assert taught.draft([1])[1] == 5
    assert np.flatnonzero(taught.is_borne_V).tolist() == [1]


def test_the_likeliest_are_kept_in_order() -> None:
    taught, generator = Taught(), np.random.default_rng(0)
    logits_V = generator.standard_normal(VOCABULARY).astype(np.float32)
    # What is never sampled.
    logits_V[[3, 4]] = -np.inf
    taught.learn([1], logits_V)
    (place,) = np.flatnonzero(taught.table.token_SK[:, 0] == logits_V.argmax())[:1]
    likeliest = np.argsort(-logits_V)[:NUM_CANDIDATES]
    assert taught.table.token_SK[place].tolist() == likeliest.tolist()
    assert taught.table.logit_SK[place].tolist() == logits_V[likeliest].tolist()


def test_a_token_is_borne_once_it_has_been_fed() -> None:
    taught = Taught()
    taught.learn_likeliest([], 5)
    assert not taught.is_borne_V.any()  # 5 has been sampled, and not fed
    taught.learn_likeliest([5], 6)
    assert np.flatnonzero(taught.is_borne_V).tolist() == [5]
