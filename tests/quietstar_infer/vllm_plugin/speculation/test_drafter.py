"""Drafts, and how sure they are."""

import numpy as np
import torch

from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThinkingRequest
from quietstar_infer.vllm_plugin.speculation.drafter import DraftedThought, ThoughtDrafter

REQUEST = ThinkingRequest(0, 0.0, 0.0, None, ())
VOCABULARY = 40
THOUGHT = [3, 1, 4, 1, 5, 9, 2, 6]


def taught() -> ThoughtDrafter:
    """A drafter that knows one thought."""
    drafter = ThoughtDrafter()
    # What comes after the last token, too: else it is not known that the model bears that.
    for known, likeliest in enumerate([*THOUGHT, 0]):
        learn(drafter, known, likeliest)
    return drafter


def learn(drafter: ThoughtDrafter, known: int, likeliest: int, logit: float = 9.0) -> None:
    logits_UV = torch.zeros(1, VOCABULARY)
    logits_UV[0, likeliest] = logit
    drafter.learn(slots(), np.zeros(1, np.int64), np.array([known]), logits_UV)


def slots() -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    return np.array([[30, *THOUGHT, 31]], dtype=np.int32)


def propose(drafter: ThoughtDrafter, drafting: Drafting) -> dict[str, int]:
    return drafter.propose([DraftedThought("a", 2, 8, 0, 0, REQUEST)], slots(), drafting)


def test_no_more_than_asked_for() -> None:
    drafter = taught()
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 6}
    assert propose(drafter, Drafting(4, 0.0, False)) == {"a": 4}
    assert drafter.take("a", 3).token_D.tolist() == THOUGHT[2:5]


def test_as_far_as_they_are_likely_enough() -> None:
    drafter = taught()
    # Before anything is known, each is as likely right as wrong.
    assert propose(drafter, Drafting(99, 0.2, False)) == {"a": 2}
    for _ in range(50):
        propose(drafter, Drafting(99, 0.0, False))
        drafter.record(drafter.take("a", 6), accepted=6)
    assert propose(drafter, Drafting(99, 0.2, False)) == {"a": 6}
    for _ in range(300):
        propose(drafter, Drafting(99, 0.0, False))
        drafter.record(drafter.take("a", 6), accepted=0)
    assert propose(drafter, Drafting(99, 0.2, False)) == {}


def test_only_drafts_behind_right_ones_are_put_to_the_test() -> None:
    drafter = taught()
    for _ in range(300):
        propose(drafter, Drafting(99, 0.0, False))
        drafts = drafter.take("a", 6)
        drafter.record(drafts, accepted=1)
    # The context of the second is longer than that of the first; what came after it is not known.
    assert propose(drafter, Drafting(99, 0.3, False)) == {"a": 1}


def test_nothing_is_learnt_from_numbers_that_are_not_finite() -> None:
    drafter = taught()
    learn(drafter, 2, 0, logit=torch.nan)
    propose(drafter, Drafting(99, 0.0, False))
    assert drafter.take("a", 6).token_D.tolist() == THOUGHT[2:]


def test_a_token_that_no_thought_has_fed_is_not_drafted() -> None:
    """It might overflow."""
    drafter = ThoughtDrafter()
    for known, likeliest in enumerate(THOUGHT[:6]):
        learn(drafter, known, likeliest)
    # The last of these tokens, 9, has been sampled, but never fed.
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 3}
    learn(drafter, 6, THOUGHT[6], logit=torch.nan)
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 3}
    learn(drafter, 6, THOUGHT[6])
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 4}


def test_a_given_thought_is_drafted_whole_and_teaches_nothing() -> None:
    drafter = taught()
    given = DraftedThought("a", 2, 5, 5, 0, REQUEST)
    for most, expected in ((99, [7, 7, 7]), (2, [7, 7])):
        tokens = np.array([[30, 7, 7, 7, 7, 7, 0, 0, 0, 31]], dtype=np.int32)
        numbers = drafter.propose([given], tokens, Drafting(most, 1.0, False))
        assert numbers == {"a": len(expected)}
        drafts = drafter.take("a", numbers["a"])
        assert drafts.token_D.tolist() == expected
        drafter.record(drafts, accepted=len(expected))
    assert propose(drafter, Drafting(99, 0.2, False)) == {"a": 2}


def test_a_forgotten_request_has_no_drafts() -> None:
    drafter = taught()
    propose(drafter, Drafting(99, 0.0, False))
    drafter.forget("a")
    drafter.forget("a")
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 6}
