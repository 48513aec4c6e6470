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
    known_U = np.arange(len(THOUGHT))
    logits_UV = 9 * torch.nn.functional.one_hot(torch.tensor(THOUGHT), VOCABULARY).float()
    drafter.learn(slots(), np.zeros(len(THOUGHT), np.int64), known_U, logits_UV)
    return drafter


def slots() -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    return np.array([[30, *THOUGHT, 31]], dtype=np.int32)


def propose(drafter: ThoughtDrafter, drafting: Drafting) -> dict[str, int]:
    return drafter.propose([DraftedThought("a", 2, 8, 0, REQUEST)], slots(), drafting)


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
    logits_UV = torch.full((1, VOCABULARY), torch.nan)
    drafter.learn(slots(), np.zeros(1, np.int64), np.array([2]), logits_UV)
    propose(drafter, Drafting(99, 0.0, False))
    assert drafter.take("a", 6).token_D.tolist() == THOUGHT[2:]


def test_a_forgotten_request_has_no_drafts() -> None:
    drafter = taught()
    propose(drafter, Drafting(99, 0.0, False))
    drafter.forget("a")
    drafter.forget("a")
    assert propose(drafter, Drafting(99, 0.0, False)) == {"a": 6}
