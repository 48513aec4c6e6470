"""What the engine counts, against what requests asked for. In larger batches:
tests/invariants/engine/test_alone_equals_batched.py.
"""

import pytest
import torch

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.metrics import MIXING_WEIGHT_BOUNDS, ThoughtMetrics
from quietstar_infer.vllm_plugin.schedule_plan import ThoughtPlan, ThoughtStep
from tests.support.counting import difference, expected_counts
from tests.support.engine import Ask, Engine

pytestmark = pytest.mark.slow

PROMPT = [1, *range(3, 36)]


def ask(budget: int, max_tokens: int, **sampling: object) -> Ask:
    fields = {"seed": 3, "max_tokens": max_tokens, "ignore_eos": True, **sampling}
    return Ask(PROMPT, ThoughtParams(budget), fields)


@pytest.mark.parametrize("budget", [0, 1, 6])
def test_one_request_alone(engine: Engine, budget: int) -> None:
    before = engine.thought_counts()
    asks = [ask(budget, max_tokens=5)]
    expected = expected_counts(asks, engine.run(asks))
    assert difference(engine.thought_counts(), before) == expected
    assert expected.passes == 5 * (budget + 1)


def test_a_batch_shares_passes(engine: Engine) -> None:
    before = engine.thought_counts()
    asks = [ask(0, max_tokens=12), ask(2, max_tokens=4), ask(5, max_tokens=2)]
    expected = expected_counts(asks, engine.run(asks))
    counts = difference(engine.thought_counts(), before)
    assert counts == expected._replace(passes=12)
    assert counts.rows == 36
    assert counts.thinking_rows == 24


@pytest.mark.parametrize("steps", range(1, 9))
def test_an_aborted_thought_is_counted_with_its_tokens(engine: Engine, steps: int) -> None:
    budget = 5
    before = engine.thought_counts()
    key = engine.add(ask(budget, max_tokens=50))
    for _ in range(steps):
        engine.step()
    engine.abort(key)
    counts = difference(engine.thought_counts(), before)
    # Asynchronous scheduling is a step or two ahead of what it was asked for; in a multi-step one
    # engine step is several passes.
    if engine.max_passes > 1:
        assert counts.passes == sum([4, 2, 4, 2, 4, 2, 4, 2][:steps])
    else:
        assert counts.passes == steps or (engine.is_asynchronous and counts.passes > steps)
    finished, phases = divmod(counts.passes, budget + 1)
    assert counts.finished == finished
    assert counts.thought_tokens == finished * budget + phases
    assert counts.aborted == ({"abort": 1} if phases else {})
    assert counts.weights_at_most[-1][1] <= finished
    engine.llm.collective_rpc("drop_thoughts", args=(key,))


def test_a_thought_behind_the_last_token_is_in_vain(engine: Engine) -> None:
    """Asynchronous scheduling begins the next thought before it knows that the last token was the
    last."""
    ((free,),) = engine.run([ask(3, max_tokens=6)])
    before = engine.thought_counts()
    stopping = ask(3, max_tokens=6, stop_token_ids=[free.token_ids[3]])
    ((answer,),) = engine.run([stopping])
    engine.drain()
    counts = difference(engine.thought_counts(), before)
    thought = 3 * len(answer.token_ids)
    if engine.is_asynchronous:
        assert counts.aborted == {"stop": 1}
        assert counts.thought_tokens == thought + 1
    else:
        assert counts.aborted == {}
        assert counts.thought_tokens == thought


def test_weights_on_a_bound_beyond_all_and_not_a_number() -> None:
    metrics = ThoughtMetrics(torch.device("cpu"))
    last, first = ThoughtStep(2, 2, 0), ThoughtStep(0, 2, 0)
    plan = ThoughtPlan({"a": last, "b": last, "c": last, "d": last, "e": first}, {}, ["abort"])
    metrics.count_pass(dict.fromkeys("abcdef", 1), plan)
    weights = torch.tensor([[-7.0], [0.5], [7.0], [float("nan")]])
    metrics.add_weights(weights[:3])
    metrics.add_weights(weights[3:].bfloat16())
    counts = metrics.counts()
    assert counts[:6] == (1, 6, 5, 1, 4, {"abort": 1})
    assert [number for _, number in counts.weights_at_most] == [
        1 if bound < 0.5 else 2 for bound in MIXING_WEIGHT_BOUNDS
    ]


def test_an_engine_step_without_rows_is_no_pass() -> None:
    metrics = ThoughtMetrics(torch.device("cpu"))
    metrics.count_pass({}, ThoughtPlan({}, {}, ["preempted"]))
    assert metrics.counts()[:6] == (0, 0, 0, 0, 0, {"preempted": 1})
