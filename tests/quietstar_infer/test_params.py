"""Which thought parameters a request may have."""

from typing import Any

import pytest

from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtLimits, ThoughtParams

LIMITS = ThoughtLimits(max_budget=16, default_budget=5)
OFF = ThoughtLimits(max_budget=0, default_budget=0)


def test_defaults() -> None:
    assert ThoughtParams.from_mapping(None, LIMITS) == ThoughtParams(budget=5, temperature=1.0)
    assert ThoughtParams.from_mapping({}, OFF).budget == 0
    greedy = ThoughtLimits(16, 5, default_temperature=0.0)
    assert ThoughtParams.from_mapping({}, greedy).temperature == 0
    assert ThoughtParams.from_mapping({"thought_temperature": 1}, greedy).temperature == 1


def test_round_trip() -> None:
    params = ThoughtParams(
        7, temperature=0.5, token_budget=40, record_key="key", first_thought=(3, 4)
    )
    assert ThoughtParams.from_mapping(params.to_mapping(), LIMITS) == params


@pytest.mark.parametrize(
    ("fields", "limits", "words"),
    [
        ({"thought_budget": -1}, LIMITS, "a whole number from 0 to 16"),
        ({"thought_budget": 17}, LIMITS, "a whole number from 0 to 16"),
        ({"thought_budget": 2.0}, LIMITS, "a whole number from 0 to 16"),
        ({"thought_budget": "5"}, LIMITS, "a whole number from 0 to 16"),
        ({"thought_budget": True}, LIMITS, "a whole number from 0 to 16"),
        ({"thought_budget": 1}, OFF, "thinking is off"),
        ({"thought_temperature": -0.5}, LIMITS, "from 0 (greedy) to 100"),
        ({"thought_temperature": float("nan")}, LIMITS, "from 0 (greedy) to 100"),
        ({"thought_temperature": 100.1}, LIMITS, "from 0 (greedy) to 100"),
        ({"thought_temperature": "hot"}, LIMITS, "from 0 (greedy) to 100"),
        ({"thinking_token_budget": -3}, LIMITS, "from 0 up"),
        ({"thinking_token_budget": 1.5}, LIMITS, "from 0 up"),
        ({"thinking_token_budget": 1, "first_thought": [3, 4]}, LIMITS, "must be at least that"),
        ({"first_thought": []}, LIMITS, "has 0 tokens, this server allows 1 to 16"),
        ({"first_thought": [3] * 17}, LIMITS, "has 17 tokens, this server allows 1 to 16"),
        ({"first_thought": [3, True]}, LIMITS, "not a list of token ids, must be 1 to 16"),
        ({"first_thought": "t3"}, LIMITS, "not a list of token ids, must be 1 to 16"),
        ({"first_thought": [3]}, OFF, "thinking is off"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, Any], limits: ThoughtLimits, words: str) -> None:
    with pytest.raises(ThoughtParamsError) as caught:
        ThoughtParams.from_mapping(fields, limits)
    assert words in str(caught.value)
    assert caught.value.parameter == next(iter(fields))


@pytest.mark.parametrize(("max_budget", "default_budget"), [(-1, 0), (4, 5), (4, -1)])
def test_bad_limits_are_refused(max_budget: int, default_budget: int) -> None:
    with pytest.raises(ValueError, match="budget is"):
        ThoughtLimits(max_budget, default_budget)


@pytest.mark.parametrize("temperature", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_bad_default_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="from 0"):
        ThoughtLimits(16, 5, temperature)


@pytest.mark.parametrize("token_budget", [None, 0, 1, 7, 8, 100])
@pytest.mark.parametrize("given", [0, 3, 6])
def test_thought_tokens_add_up(given: int, token_budget: int | None) -> None:
    if token_budget is not None and given > token_budget:
        return  # refused
    params = ThoughtParams(budget=4, token_budget=token_budget, first_thought=(7,) * given)
    assert params.budget_at(0) == (given or params.budget_after(0))
    spent = 0
    for index in range(12):
        assert params.thought_tokens(index) == spent
        assert params.budget_after(spent) == params.budget_at(index)
        spent += params.budget_at(index)
    most = (given or 4) + 44
    assert spent == (most if token_budget is None else min(most, token_budget))


def test_a_given_thought_may_be_the_only_one() -> None:
    params = ThoughtParams(budget=0, first_thought=(7, 8))
    assert [params.budget_at(index) for index in range(3)] == [2, 0, 0]
    assert (params.longest_thought, params.reserve, params.is_gated) == (2, 3, False)


def test_no_thoughts_need_no_room() -> None:
    assert ThoughtParams(budget=0).reserve == 0
    assert ThoughtParams(budget=3).reserve == 4
