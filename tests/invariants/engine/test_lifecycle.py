"""A thought leaves nothing behind, wherever it ends, unless its request asked to see it."""

import pytest
from vllm import SamplingParams
from vllm.inputs import TokensPrompt

from quietstar_infer.params import ThoughtParams
from tests.support.checkpoints import END_ID, START_ID
from tests.support.engine import MAX_LOGGED, Ask, Engine

pytestmark = pytest.mark.slow

PROMPT = [1, *range(3, 36)]


def ask(budget: int, max_tokens: int = 8, **thoughts: object) -> Ask:
    params = ThoughtParams(budget, **{"temperature": 1.0, **thoughts})  # type: ignore[arg-type]
    return Ask(PROMPT, params, {"seed": 3, "max_tokens": max_tokens, "ignore_eos": True})


def free_blocks(engine: Engine) -> int:
    blocks: int = engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    return blocks


@pytest.mark.parametrize("steps", range(1, 9))
def test_abort_at_every_phase(engine: Engine, steps: int) -> None:
    blocks_before = free_blocks(engine)
    key = engine.add(ask(budget=5, max_tokens=50))
    for _ in range(steps):
        engine.step()
    engine.abort(key)
    assert engine.thought_usage() == {"slots": 0, "recorded_tokens": 0}
    assert free_blocks(engine) == blocks_before
    assert not engine.scheduler.requests
    assert not engine.scheduler._thoughts
    assert not engine.scheduler._params


def test_other_requests_go_on_when_one_is_aborted(engine: Engine) -> None:
    ((alone,),) = engine.run([ask(budget=4)])
    victim, neighbour = engine.add(ask(budget=16, max_tokens=50)), engine.add(ask(budget=4))
    finished = []
    for step in range(100):
        finished += [output for output in engine.step() if output.finished]
        if step == 7 // engine.max_passes:
            engine.llm.llm_engine.abort_request([victim])
    engine.drain()
    (output,) = finished
    assert output.outputs[0].token_ids == alone.token_ids
    recorded = engine.take_thoughts(neighbour)
    assert [t["token_ids"] for t in next(iter(recorded.values()))][:8] == alone.thoughts
    engine.take_thoughts(victim)


def test_thoughts_are_logged_only_for_requests_that_asked(engine: Engine) -> None:
    ((answer,),) = engine.run([ask(budget=3)])
    assert [len(thought) for thought in answer.thoughts] == [3] * 8
    outputs = engine.llm.generate(
        TokensPrompt(prompt_token_ids=PROMPT),
        [_unlogged(ask(budget=3))],
        use_tqdm=False,
    )
    assert list(outputs[0].outputs[0].token_ids) == answer.token_ids
    assert engine.thought_usage()["recorded_tokens"] == 0


def test_the_log_is_bounded(engine: Engine) -> None:
    key = engine.add(ask(budget=7, max_tokens=10))
    engine.drain()
    assert engine.thought_usage()["recorded_tokens"] == 35 <= MAX_LOGGED < 42
    (thoughts,) = engine.take_thoughts(key).values()
    assert [thought["index"] for thought in thoughts] == [0, 1, 2, 3, 4]
    assert engine.thought_usage()["recorded_tokens"] == 0


def test_thoughts_are_not_in_the_answer(engine: Engine) -> None:
    sampling = _unlogged(ask(budget=6, max_tokens=12))
    sampling.logprobs = 5
    (output,) = engine.llm.generate(
        TokensPrompt(prompt_token_ids=PROMPT), [sampling], use_tqdm=False
    )
    answer = output.outputs[0]
    assert len(answer.token_ids) == 12
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 12
    for token, logprobs in zip(answer.token_ids, answer.logprobs, strict=True):
        assert logprobs is not None
        assert token in logprobs
        assert not {START_ID, END_ID} & set(logprobs)


def test_thoughts_are_not_in_the_prefix_cache(engine: Engine) -> None:
    """Only whole blocks of visible text are found again; thoughts lay in the next block."""
    engine.llm.reset_prefix_cache()
    sampling = {"seed": 5, "max_tokens": 40, "ignore_eos": True}
    ((answer,),) = engine.run([Ask(PROMPT, ThoughtParams(16), sampling)])
    text = [*PROMPT, *answer.token_ids]
    pool = engine.scheduler.kv_cache_manager.block_pool
    cached = len(pool.cached_block_hash_to_block)
    # The last visible token was never fed: 34 + 40 - 1 computed tokens are 2 whole blocks of 32.
    assert cached == (len(text) - 1) // 32
    follow_up = Ask([*text, 9], ThoughtParams(4), sampling)
    fresh = engine.run([follow_up])
    engine.llm.reset_prefix_cache()
    assert engine.run([follow_up]) == fresh


@pytest.mark.parametrize(
    "extra",
    [
        {"thought_budget": 17},
        {"thought_budget": -1},
        {"thought_budget": 2.5},
        {"thought_temperature": -0.1},
        {"thinking_token_budget": "many"},
        {"first_thought": []},
        {"first_thought": [5] * 17},
        {"first_thought": [5, START_ID]},
        {"first_thought": [10**9]},
        {"first_thought": [-1]},
    ],
)
def test_a_bad_request_fails_alone(engine: Engine, extra: dict[str, object]) -> None:
    good, bad = _unlogged(ask(budget=2)), _unlogged(ask(budget=2))
    bad.extra_args = extra
    expected = engine.llm.generate(TokensPrompt(prompt_token_ids=PROMPT), [good], use_tqdm=False)
    results = engine.llm.generate(
        [TokensPrompt(prompt_token_ids=PROMPT)] * 2, [bad, good], use_tqdm=False
    )
    assert results[0].outputs[0].finish_reason == "error"
    assert results[1].outputs[0].token_ids == expected[0].outputs[0].token_ids


def test_the_context_holds_the_last_thought(engine: Engine) -> None:
    budget, limit = 9, 512
    prompt = [1] * (limit - 20)
    sampling = {"max_tokens": 100, "ignore_eos": True}
    ((answer,),) = engine.run([Ask(prompt, ThoughtParams(budget, 0.0), sampling)])
    assert answer.finish_reason == "length"
    assert len(prompt) + len(answer.token_ids) == limit - (budget + 1)


def test_the_context_holds_a_given_thought(engine: Engine) -> None:
    given, limit = (5,) * 16, 512
    prompt = [1] * (limit - len(given) - 2)
    params = ThoughtParams(0, first_thought=given)
    ((answer,),) = engine.run([Ask(prompt, params, {"max_tokens": 100, "ignore_eos": True})])
    assert (len(answer.token_ids), answer.thoughts) == (1, [list(given)])


def test_the_token_budget_is_spent_to_the_last_token(engine: Engine) -> None:
    ((answer,),) = engine.run([ask(budget=4, token_budget=10)])
    assert [len(thought) for thought in answer.thoughts] == [4, 4, 2]
    assert len(answer.token_ids) == 8


def _unlogged(ask: Ask) -> SamplingParams:
    return SamplingParams(**ask.sampling, extra_args=ask.thoughts.to_mapping())
