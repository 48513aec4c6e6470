"""What a thought leaves behind: nothing, wherever it ends, save for those who asked to see it."""

from collections.abc import Iterator

import pytest
from vllm import SamplingParams
from vllm.inputs import TokensPrompt

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from tests.support.checkpoints import END_ID, START_ID, write_random_checkpoint
from tests.support.engine import Ask, Engine, thinking_engine

PROMPT = [1, *range(3, 36)]
MAX_RECORDED = 40


@pytest.fixture(
    scope="module",
    params=[(False, 1), (True, 1), (False, 4)],
    ids=["synchronous", "asynchronous", "bursts"],
)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    checkpoint = write_random_checkpoint(tmp_path_factory.mktemp("lifecycle"), "llama")
    asynchronous, burst = request.param
    options = ThinkingOptions(max_recorded_thought_tokens=MAX_RECORDED, max_thought_burst=burst)
    with thinking_engine(checkpoint, options, asynchronous, block_size=32) as running:
        yield running


def ask(budget: int, max_tokens: int = 8, **thoughts: object) -> Ask:
    params = ThoughtParams(budget, **{"temperature": 1.0, **thoughts})  # type: ignore[arg-type]
    return Ask(PROMPT, params, {"seed": 3, "max_tokens": max_tokens, "ignore_eos": True})


def drain(engine: Engine) -> None:
    while engine.llm.llm_engine.has_unfinished_requests():
        engine.step()
    engine.step()


def free_blocks(engine: Engine) -> int:
    blocks: int = engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    return blocks


@pytest.mark.parametrize("steps", range(1, 9))
def test_abort_at_every_phase(engine: Engine, steps: int) -> None:
    blocks_before = free_blocks(engine)
    key = engine.add(ask(budget=5, max_tokens=50))
    for _ in range(steps):
        engine.step()
    engine.llm.llm_engine.abort_request([key])
    drain(engine)
    engine.llm.collective_rpc("drop_thoughts", args=(key,))
    assert engine.thought_usage() == {"slots": 0, "recorded_tokens": 0}
    assert free_blocks(engine) == blocks_before
    assert not engine.scheduler.requests
    assert not engine.scheduler._thoughts
    assert not engine.scheduler._params


def test_neighbours_of_an_aborted_request_go_on(engine: Engine) -> None:
    ((alone,),) = engine.run([ask(budget=4)])
    victim, neighbour = engine.add(ask(budget=16, max_tokens=50)), engine.add(ask(budget=4))
    finished = []
    for step in range(100):
        finished += [output for output in engine.step() if output.finished]
        if step == 7 // engine.max_burst:
            engine.llm.llm_engine.abort_request([victim])
    drain(engine)
    (output,) = finished
    assert output.outputs[0].token_ids == alone.token_ids
    recorded = engine.take_thoughts(neighbour)
    assert [t["token_ids"] for t in next(iter(recorded.values()))][:8] == alone.thoughts
    engine.take_thoughts(victim)


def test_thoughts_are_kept_for_those_who_asked_only(engine: Engine) -> None:
    ((answer,),) = engine.run([ask(budget=3)])
    assert [len(thought) for thought in answer.thoughts] == [3] * 8
    outputs = engine.llm.generate(
        TokensPrompt(prompt_token_ids=PROMPT),
        [_unrecorded(ask(budget=3))],
        use_tqdm=False,
    )
    assert list(outputs[0].outputs[0].token_ids) == answer.token_ids
    assert engine.thought_usage()["recorded_tokens"] == 0


def test_records_are_bounded(engine: Engine) -> None:
    key = engine.add(ask(budget=7, max_tokens=10))
    drain(engine)
    assert engine.thought_usage()["recorded_tokens"] == 35
    (thoughts,) = engine.take_thoughts(key).values()
    assert [thought["index"] for thought in thoughts] == [0, 1, 2, 3, 4]
    assert engine.thought_usage()["recorded_tokens"] == 0


def test_thoughts_are_not_in_what_the_user_gets(engine: Engine) -> None:
    sampling = _unrecorded(ask(budget=6, max_tokens=12))
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
    # The last token said was never fed: 34 + 40 - 1 computed tokens are 2 whole blocks of 32.
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
    ],
)
def test_a_bad_request_ends_alone(engine: Engine, extra: dict[str, object]) -> None:
    good, bad = _unrecorded(ask(budget=2)), _unrecorded(ask(budget=2))
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


def test_the_token_budget_is_spent_to_the_last_token(engine: Engine) -> None:
    ((answer,),) = engine.run([ask(budget=4, token_budget=10)])
    assert [len(thought) for thought in answer.thoughts] == [4, 4, 2]
    assert len(answer.token_ids) == 8


def _unrecorded(ask: Ask) -> SamplingParams:
    return SamplingParams(**ask.sampling, extra_args=ask.thoughts.to_mapping())
