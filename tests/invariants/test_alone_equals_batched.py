"""Alone = in company: what a request says and thinks does not depend on who shares the engine."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from quietstar_infer.vllm_plugin.multi_step import PlainPassesMixin
from tests.support.checkpoints import NUM_PLAIN_TOKENS, write_random_checkpoint
from tests.support.counting import expected_counts
from tests.support.engine import Ask, Engine, Spoken, thinking_engine

BLOCK = 32
# Around the boundaries of KV blocks, where thoughts cross into the next block, and far from them.
PROMPT_LENGTHS = [1, 2, 7, 29, 30, 31, 32, 33, 34, 61, 62, 63, 64, 65, 66, 95, 97, 128, 150]
NUM_ASKS = 40

Companies = dict[str, tuple[list[Ask], list[list[Spoken]]]]


ONE_AT_A_TIME = ThinkingOptions(max_thought_burst=1)


def company(
    seed: int,
    shared_prefix: int = 0,
    budgets: Sequence[int] = (0, 0, 1, 2, 4, 8, 16),
    size: int = NUM_ASKS,
    gaps: Sequence[int] = (0, 0, 1, 3),
) -> list[Ask]:
    """Requests of every kind, arriving a few steps apart. All sampling is seeded."""
    draw = random.Random(seed)
    prefix = [draw.randrange(3, NUM_PLAIN_TOKENS) for _ in range(shared_prefix)]
    asks, arrival = [], 0
    for index in range(size):
        length = PROMPT_LENGTHS[index % len(PROMPT_LENGTHS)]
        thoughts = ThoughtParams(
            budget=draw.choice(budgets),
            temperature=draw.choice([0.0, 1.0, 1.0, 0.7]),
            token_budget=draw.choice([None, None, None, 0, 3, 10]),
        )
        asks.append(
            Ask(
                prompt=[1, *prefix, *(draw.randrange(3, NUM_PLAIN_TOKENS) for _ in range(length))],
                thoughts=thoughts,
                sampling={"seed": 1000 + index, "max_tokens": draw.randrange(1, 20)}
                | _sampling(draw),
                arrival=arrival,
            )
        )
        arrival += draw.choice(gaps)
    return asks


def _sampling(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        [
            {"temperature": 0.0},
            {"temperature": 0.0, "ignore_eos": True},
            {"temperature": 1.0},
            {"temperature": 0.8, "top_p": 0.9},
            {"temperature": 1.2, "top_k": 5, "n": 3},
            {"temperature": 1.0, "n": 2, "ignore_eos": True},
            {"temperature": 0.0, "repetition_penalty": 1.3, "ignore_eos": True},
            {"temperature": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.3},
            {"temperature": 0.0, "logprobs": 3},
            {"temperature": 1.0, "stop": ["t10", "t20", "t30", "t40"]},
            {"temperature": 1.0, "min_tokens": 4, "max_tokens": 12, "stop_token_ids": [11, 22, 33]},
        ]
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("company"), "mistral")


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> Iterator[Companies]:
    """The requests of each company, and what each says by itself, on the plainest settings."""
    companies = {
        "mixed": company(seed=1),
        "shared prefix": company(seed=2, shared_prefix=200),
        # Few at a time, so that bursts are the rule; now and then one speaks.
        "thinkers": company(seed=3, budgets=(1, 2, 4, 8, 8, 16, 16, 0), size=24, gaps=(0, 2, 9)),
    }
    with thinking_engine(
        checkpoint, ONE_AT_A_TIME, enable_prefix_caching=False, block_size=BLOCK
    ) as engine:
        yield {
            name: (asks, [engine.run([_now(ask)])[0] for ask in asks])
            for name, asks in companies.items()
        }


def _now(ask: Ask) -> Ask:
    return Ask(ask.prompt, ask.thoughts, ask.sampling)


def assert_same(asks: list[Ask], actual: list[list[Spoken]], expected: list[list[Spoken]]) -> None:
    for ask, in_company, by_itself in zip(asks, actual, expected, strict=True):
        assert len(in_company) == len(by_itself)
        for answer, reference in zip(in_company, by_itself, strict=True):
            assert answer[:4] == reference[:4], ask
            assert_close(answer.mixing_weights, reference.mixing_weights)
            assert_close(answer.base_logprobs, reference.base_logprobs)
            assert_close(answer.mixed_logprobs, reference.mixed_logprobs)
            # What vLLM reports, at any temperature and in spite of penalties, is the mixed
            # prediction.
            thought_about = slice(len(answer.thoughts)) if answer.logprobs else slice(0)
            assert_close(answer.logprobs[thought_about], answer.mixed_logprobs[thought_about])


def assert_close(actual: list[float], expected: list[float]) -> None:
    assert actual == pytest.approx(expected, abs=1e-3)


# A KV cache of 12 blocks: 2 layers, K and V, 32 slots, 1 head of 32, 4 bytes.
SMALL_CACHE = {"kv_cache_memory_bytes": 12 * 2 * 2 * BLOCK * 32 * 4, "max_model_len": 256}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one pass at a time": {"options": ONE_AT_A_TIME},
    "asynchronous": {"asynchronous": True},
    "chunked prefill": {"max_num_batched_tokens": 72, "max_num_seqs": 48},
    "chunked prefill, asynchronous": {
        "max_num_batched_tokens": 72,
        "max_num_seqs": 48,
        "asynchronous": True,
    },
    "few sequences": {"max_num_seqs": 3},
    "preempted": SMALL_CACHE,
    "preempted, asynchronous": {**SMALL_CACHE, "asynchronous": True},
    "compiled": {"enforce_eager": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_mixed_company(variant: str, checkpoint: Path, alone: Companies) -> None:
    asks, expected = alone["mixed"]
    settings = {"block_size": BLOCK, "enable_prefix_caching": False, **VARIANTS[variant]}
    with thinking_engine(checkpoint, **settings) as engine:
        answers = engine.run(asks)
        assert_same(asks, answers, expected)
        assert (engine.preemptions > 0) == variant.startswith("preempted")
        assert_nothing_left(engine)
        assert_counted(
            engine,
            asks,
            answers,
            in_vain=settings.get("asynchronous", False) or variant.startswith("preempted"),
            chunks=variant.startswith("chunked"),
        )


@pytest.mark.parametrize(
    ("variant", "max_burst"),
    [("plain", 4), ("plain", 17), ("asynchronous", 4), ("preempted", 3), ("compiled", 4)],
)
def test_bursts(variant: str, max_burst: int, checkpoint: Path, alone: Companies) -> None:
    asks, expected = alone["thinkers"]
    settings = {"block_size": BLOCK, "enable_prefix_caching": False, **VARIANTS[variant]}
    options = ThinkingOptions(max_thought_burst=max_burst)
    with thinking_engine(checkpoint, options, **settings) as engine:
        answers = engine.run(asks)
        assert_same(asks, answers, expected)
        assert engine.thought_counts().passes > 1.1 * engine.num_steps
        assert (engine.preemptions > 0) == (variant == "preempted")
        assert_nothing_left(engine)
        in_vain = None if variant in ("asynchronous", "preempted") else False
        assert_counted(engine, asks, answers, in_vain)


@pytest.mark.parametrize("variant", ["plain", "preempted"])
def test_bursts_cut_short(
    variant: str, checkpoint: Path, alone: Companies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by somebody who arrives after any of their passes."""
    draw = random.Random(0)
    forward = PlainPassesMixin._plain_forward
    interrupted = []

    def interrupting(runner: Any, *args: Any) -> Any:
        if draw.random() < 0.3:
            runner.is_interrupted = True
            interrupted.append(True)
        return forward(runner, *args)

    monkeypatch.setattr(PlainPassesMixin, "_plain_forward", interrupting)
    asks, expected = alone["thinkers"]
    settings = {"block_size": BLOCK, "enable_prefix_caching": False, **VARIANTS[variant]}
    with thinking_engine(checkpoint, ThinkingOptions(max_thought_burst=17), **settings) as engine:
        answers = engine.run(asks)
        assert_same(asks, answers, expected)
        assert len(interrupted) > 20
        assert engine.thought_counts().passes > 1.1 * engine.num_steps
        assert_nothing_left(engine)
        assert_counted(engine, asks, answers, None if variant == "preempted" else False)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_shared_prefix(asynchronous: bool, checkpoint: Path, alone: Companies) -> None:
    asks, expected = alone["shared prefix"]
    with thinking_engine(
        checkpoint, asynchronous=asynchronous, block_size=BLOCK, enable_prefix_caching=True
    ) as engine:
        assert_same(asks, engine.run(asks), expected)
        # Now whole prompts are found in the cache; no thought may have overwritten them.
        assert_same(asks, engine.run(asks), expected)
        hits = {m.name: getattr(m, "value", 0) for m in engine.llm.get_metrics()}
        assert hits["vllm:prefix_cache_hits"] > 200 * NUM_ASKS
        assert_nothing_left(engine)


def test_tensor_parallel(
    checkpoint: Path,
    alone: Companies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    asks, expected = alone["mixed"]
    with thinking_engine(checkpoint, tensor_parallel_size=2, block_size=BLOCK) as engine:
        answers = engine.run(asks)
        assert_same(asks, answers, expected)
        # Counted once, however many ranks think.
        assert_counted(engine, asks, answers)


def assert_nothing_left(engine: Engine) -> None:
    assert engine.thought_usage() == {"slots": 0, "recorded_tokens": 0}
    assert not engine.scheduler.requests
    assert engine.scheduler.get_kv_cache_usage() == 0


def assert_counted(
    engine: Engine,
    asks: list[Ask],
    answers: list[list[Spoken]],
    in_vain: bool | None = False,
    chunks: bool = False,
) -> None:
    """What the engine has counted is what the answers took; more, where some was thought in vain
    (behind a last token, or before a preemption; None = perhaps), or where prompts were read in
    several passes.
    """
    counts = engine.thought_counts()
    expected = expected_counts(asks, answers)
    aborted = sum(counts.aborted.values())
    assert in_vain is None or (aborted > 0) == in_vain
    assert counts.thought_tokens - expected.thought_tokens >= aborted
    assert counts.passes <= counts.rows
    assert counts.weights_at_most[-1][1] <= counts.finished
    if in_vain is False:
        assert counts.thinking_rows == expected.thinking_rows
        assert counts.thought_tokens == expected.thought_tokens
        assert counts.finished == expected.finished
        assert counts.weights_at_most == expected.weights_at_most
        assert counts.rows == expected.rows or (chunks and counts.rows > expected.rows)
