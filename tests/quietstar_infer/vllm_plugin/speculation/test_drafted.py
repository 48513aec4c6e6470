"""Thoughts of a batch that is run until they have ended."""

import numpy as np
import pytest
import torch

from quietstar_infer.vllm_plugin.schedule_plan import Drafting, ThoughtStep
from quietstar_infer.vllm_plugin.speculation.drafted import DraftedThoughts
from quietstar_infer.vllm_plugin.thought_sampler import ThoughtInputs

BUDGET = 5


def thoughts_of(rows: int, patience: float) -> DraftedThoughts:
    return DraftedThoughts(
        [f"r{row}" for row in range(rows)],
        [ThoughtStep(2, BUDGET, 7) for _ in range(rows)],
        [ThoughtInputs(row, row, 10 + row, 2, 0, 100, 0, 0) for row in range(rows)],
        [0.0] * rows,
        [-1] * rows,
        Drafting(8, 0.0, patience),
        torch.zeros(rows, 3),
    )


def end(thoughts: DraftedThoughts, *rows: int) -> torch.Tensor:
    """Have thoughts end in a pass in which each row feeds a draft and END behind its own token."""
    thoughts.thought_R["place"] = 3 * np.arange(len(thoughts.thought_R))
    thoughts.thought_R["num_drafts"] = 1
    for row in rows:
        thoughts.thought_R["has_ended"][row] = True
        thoughts.thought_R["known"][row] = BUDGET
    hidden_NH = torch.randn(3 * len(thoughts.thought_R), 3)
    thoughts.advance(hidden_NH, len(rows))
    return hidden_NH


@pytest.mark.parametrize(("patience", "passes"), [(0.0, 1), (0.5, 3), (1.0, 5)])
def test_who_has_ended_waits_for_the_others_for_a_while(patience: float, passes: int) -> None:
    thoughts = thoughts_of(4, patience)
    end(thoughts)
    assert thoughts.goes_on()
    end(thoughts, 2)  # a quarter of the batch waits in each further pass
    run = 1
    while thoughts.goes_on():
        end(thoughts)
        run += 1
    assert run == passes


def test_it_ends_when_all_have_ended() -> None:
    thoughts = thoughts_of(2, 9.0)
    end(thoughts, 0)
    assert thoughts.goes_on()
    end(thoughts, 1)
    assert not thoughts.goes_on()
    assert (thoughts.num_passes, thoughts.num_tokens) == (2, 12)


def test_the_hidden_states_are_those_of_the_pass_in_which_each_ended() -> None:
    thoughts = thoughts_of(3, 9.0)
    first_NH = end(thoughts, 1)
    second_NH = end(thoughts, 0)
    expected = [second_NH[2], first_NH[5], torch.zeros(3)]
    assert torch.equal(thoughts.hidden_RH, torch.stack(expected))


def test_how_far_each_has_got() -> None:
    thoughts = thoughts_of(3, 9.0)
    thoughts.thought_R["known"][0] = 4  # three more passes than began it
    end(thoughts, 1)
    assert thoughts.reached() == {"r0": 3, "r1": BUDGET, "r2": 1}
    request_ids, steps, last = thoughts.ended()
    assert request_ids == ["r1"]
    assert steps == [ThoughtStep(BUDGET, BUDGET, 7)]
    assert last == [ThoughtInputs(1, 0, 11, BUDGET, 0, 100, 0, 0)]
