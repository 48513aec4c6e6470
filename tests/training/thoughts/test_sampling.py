"""Sampling of thought tokens: exact, and a function of seed, step and text alone."""

import torch

from training.thoughts.batch import make_batch
from training.thoughts.sampling import random_draw, seeded_draw, sequence_seeds

TEXT = torch.tensor([[5, 6, 7, 8], [9, 9, 4, 2]])


def test_seeded_draws_follow_the_distribution() -> None:
    logits_V = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -1.0])
    rows = 20_000
    logits_NV = logits_V.expand(rows, -1)
    probability_NV = logits_NV.softmax(dim=-1)
    drawn_N = seeded_draw([1], rows)(logits_NV, probability_NV, 0, 0)
    share_V = drawn_N.bincount(minlength=5) / rows
    torch.testing.assert_close(share_V, logits_V.softmax(0), atol=0.015, rtol=0)
    warm_N = seeded_draw([1], rows, temperature=2.0)(logits_NV, probability_NV, 0, 0)
    share_V = warm_N.bincount(minlength=5) / rows
    torch.testing.assert_close(share_V, (logits_V / 2).softmax(0), atol=0.015, rtol=0)


def test_a_draw_does_not_depend_on_chunks_or_on_the_rest_of_the_batch() -> None:
    logits_NV = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    probability_NV = logits_NV.softmax(dim=-1)
    both, alone = seeded_draw([11, 22], 6), seeded_draw([22], 6)
    whole_N = both(logits_NV, probability_NV, 3, 0)
    parts = [
        both(logits_NV[:5], probability_NV[:5], 3, 0),
        both(logits_NV[5:], probability_NV[5:], 3, 5),
    ]
    torch.testing.assert_close(torch.cat(parts), whole_N)
    torch.testing.assert_close(alone(logits_NV[6:], probability_NV[6:], 3, 0), whole_N[6:])
    assert (both(logits_NV, probability_NV, 4, 0) != whole_N).any()


def test_seeds_do_not_depend_on_padding() -> None:
    batch = make_batch(TEXT, pad_token_id=2)
    seeds = sequence_seeds(batch, 0, 7)
    assert len(set(seeds)) == 2
    assert sequence_seeds(make_batch(TEXT[:, :3], pad_token_id=2), 0, 7)[1] == seeds[1]
    assert set(sequence_seeds(batch, 1, 7)).isdisjoint(seeds)
    assert set(sequence_seeds(batch, 0, 8)).isdisjoint(seeds)


def test_random_draws_follow_the_distribution_and_leave_out_banned_tokens() -> None:
    probability_V = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.25, 0.0])
    logits_NV = probability_V.log().expand(20_000, -1)
    choose = random_draw(1.0, torch.Generator().manual_seed(0))
    ids_N = choose(logits_NV, logits_NV.softmax(dim=-1), 0, 0)
    share_V = ids_N.bincount(minlength=6) / len(ids_N)
    torch.testing.assert_close(share_V, probability_V, rtol=0, atol=0.015)
    assert not share_V[probability_V == 0].any()
