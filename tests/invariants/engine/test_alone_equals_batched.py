"""Alone = batched: what a request emits and thinks does not depend on the requests that share the
engine with it, nor on how the engine schedules them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.metrics import ThoughtCounts
from quietstar_infer.vllm_plugin.multi_step import MultiStepMixin
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from tests.support.checkpoints import NUM_PLAIN_TOKENS, write_random_gate
from tests.support.counting import difference, expected_counts
from tests.support.engine import BLOCK, Answer, Ask, Engine, EnginePool, thinking_engine

pytestmark = pytest.mark.slow

# Around the boundaries of KV blocks, where thoughts cross into the next block, and far from them.
PROMPT_LENGTHS = [1, 2, 7, 29, 30, 31, 32, 33, 34, 61, 62, 63, 64, 65, 66, 95, 97, 128, 150]
NUM_ASKS = 40
# So many more have a thought that is given.
NUM_GIVEN = 8

# The requests of each workload, and the answers to each when it is alone.
Workloads = dict[str, tuple[list[Ask], list[list[Answer]]]]


def workload(
    seed: int,
    shared_prefix: int = 0,
    budgets: Sequence[int] = (0, 0, 1, 2, 4, 8, 16),
    size: int = NUM_ASKS,
    gaps: Sequence[int] = (0, 0, 1, 3),
    thresholds: Sequence[float] = (0.0,),
) -> list[Ask]:
    """Requests of every kind, arriving a few steps apart. All sampling is seeded."""
    draw = random.Random(seed)
    draw_threshold = random.Random(seed)
    prefix = [draw.randrange(3, NUM_PLAIN_TOKENS) for _ in range(shared_prefix)]
    asks, arrival = [], 0
    for index in range(size):
        length = PROMPT_LENGTHS[index % len(PROMPT_LENGTHS)]
        thoughts = ThoughtParams(
            budget=draw.choice(budgets),
            temperature=draw.choice([0.0, 1.0, 1.0, 0.7]),
            threshold=draw_threshold.choice(thresholds),
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
    return [*asks, *(_with_given_thought(draw.choice(asks), draw) for _ in range(NUM_GIVEN))]


def _with_given_thought(ask: Ask, draw: random.Random) -> Ask:
    """A request like another one, whose first thought is given."""
    given = [draw.randrange(3, NUM_PLAIN_TOKENS) for _ in range(draw.choice([1, 3, 8, 16]))]
    thoughts = replace(ask.thoughts, first_thought=tuple(given), token_budget=None)
    return replace(ask, thoughts=thoughts)


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


# A KV cache of 12 blocks: 2 layers, K and V, 32 slots, 1 head of 32, 4 bytes.
SMALL_CACHE = {"kv_cache_memory_bytes": 12 * 2 * 2 * BLOCK * 32 * 4, "max_model_len": 256}
ONE_BY_ONE = ThinkingOptions(max_thought_burst=1, speculative_thoughts=0)
NO_DRAFTS = ThinkingOptions(speculative_thoughts=0)
DRAFTING = ThinkingOptions(speculative_thoughts=16)
FEW_DRAFTS = ThinkingOptions(speculative_thoughts=2)
CHUNKED = {"max_num_batched_tokens": 72, "max_num_seqs": 48}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "one pass at a time": {"options": ONE_BY_ONE},
    "speculative": {"options": DRAFTING},
    "asynchronous": {"asynchronous": True},
    "chunked prefill": CHUNKED,
    "chunked prefill, asynchronous": {**CHUNKED, "asynchronous": True},
    "chunked prefill, speculative": {**CHUNKED, "options": DRAFTING},
    "few sequences": {"max_num_seqs": 3},
    "preempted": {**SMALL_CACHE, "options": NO_DRAFTS},
    "preempted, asynchronous": {**SMALL_CACHE, "asynchronous": True},
    "preempted, speculative": {**SMALL_CACHE, "options": DRAFTING},
    "few sequences, speculative": {"max_num_seqs": 3, "options": FEW_DRAFTS},
    "compiled": {"enforce_eager": False},
}


@pytest.fixture(scope="module")
def checkpoint(
    random_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_random_gate(tmp_path_factory.mktemp("gated"), random_checkpoint("mistral"))


@pytest.fixture(scope="module")
def start(checkpoint: Path, engines: EnginePool) -> Callable[..., Engine]:
    """Our engine in one of the variants."""

    def started(variant: str, **settings: Any) -> Engine:
        settings = {"enable_prefix_caching": False, **VARIANTS[variant], **settings}
        return engines.get(checkpoint, **settings)

    return started


@pytest.fixture(scope="module")
def alone(start: Callable[..., Engine]) -> Workloads:
    """Each request by itself, on an engine with as few features as possible."""
    workloads = {
        "mixed": workload(seed=1),
        "shared prefix": workload(seed=2, shared_prefix=200),
        # Few at a time, so that multi-step is the rule; now and then one does not think.
        # Mixed with requests that think at every token and with those that never do.
        "gated": workload(seed=4, thresholds=(0.0, 0.4, 0.8, 0.95, 1.1)),
        "thinkers": workload(seed=3, budgets=(1, 2, 4, 8, 8, 16, 16, 0), size=24, gaps=(0, 2, 9)),
    }
    engine = start("one pass at a time")
    return {
        name: (asks, [engine.run([_now(ask)])[0] for ask in asks])
        for name, asks in workloads.items()
    }


def _now(ask: Ask) -> Ask:
    return Ask(ask.prompt, ask.thoughts, ask.sampling)


def assert_same(asks: list[Ask], actual: list[list[Answer]], expected: list[list[Answer]]) -> None:
    for ask, batched, by_itself in zip(asks, actual, expected, strict=True):
        assert len(batched) == len(by_itself)
        for answer, reference in zip(batched, by_itself, strict=True):
            assert answer[:4] == reference[:4], ask
            assert_close(answer.mixing_weights, reference.mixing_weights)
            assert_close(answer.base_logprobs, reference.base_logprobs)
            assert_close(answer.mixed_logprobs, reference.mixed_logprobs)
            assert_close(answer.expected_gains, reference.expected_gains)
            # What vLLM reports, at any temperature and in spite of penalties, is the mixed
            # prediction.
            thought_about = slice(len(answer.thoughts)) if answer.logprobs else slice(0)
            assert_close(answer.logprobs[thought_about], answer.mixed_logprobs[thought_about])


def assert_close(actual: Sequence[float | None], expected: Sequence[float | None]) -> None:
    assert actual == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["mixed", "gated"])
def test_a_given_thought_is_as_good_as_the_sampled_one(
    name: str, start: Callable[..., Engine], alone: Workloads
) -> None:
    """Bit for bit: of a request that has sampled just that."""
    engine = start("one pass at a time")
    num_given = 0
    for ask, expected in zip(*alone[name], strict=True):
        (answer, *others), given = expected, ask.thoughts.first_thought
        assert not given or all(each.thoughts[0] == list(given) for each in expected)
        if others or given or not answer.thoughts or not answer.thoughts[0]:
            continue
        thoughts = replace(ask.thoughts, first_thought=tuple(answer.thoughts[0]))
        assert engine.run([Ask(ask.prompt, thoughts, ask.sampling)]) == [expected]
        num_given += 1
    assert num_given > 5


@pytest.mark.parametrize("name", ["mixed", "gated"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_mixed_batches(
    name: str, variant: str, start: Callable[..., Engine], alone: Workloads
) -> None:
    asks, expected = alone[name]
    engine = start(variant)
    counts, preemptions = engine.thought_counts(), engine.preemptions
    answers = engine.run(asks)
    assert_same(asks, answers, expected)
    assert (engine.preemptions > preemptions) == variant.startswith("preempted")
    assert_nothing_left(engine)
    assert_counted(
        difference(engine.thought_counts(), counts),
        asks,
        answers,
        in_vain="asynchronous" in variant or variant.startswith("preempted"),
        chunks=variant.startswith("chunked"),
    )


@pytest.mark.parametrize(
    ("variant", "max_passes"),
    [("default", 4), ("default", 17), ("asynchronous", 4), ("preempted", 3), ("compiled", 16)],
)
def test_multi_step(
    variant: str, max_passes: int, start: Callable[..., Engine], alone: Workloads
) -> None:
    asks, expected = alone["thinkers"]
    options = ThinkingOptions(max_thought_burst=max_passes, speculative_thoughts=0)
    engine = start(variant, options=options)
    counts, preemptions, steps = engine.thought_counts(), engine.preemptions, engine.num_steps
    answers = engine.run(asks)
    assert_same(asks, answers, expected)
    counted = difference(engine.thought_counts(), counts)
    assert counted.passes > 1.1 * (engine.num_steps - steps)
    assert (engine.preemptions > preemptions) == (variant == "preempted")
    assert_nothing_left(engine)
    in_vain = None if variant in ("asynchronous", "preempted") else False
    assert_counted(counted, asks, answers, in_vain)


@pytest.mark.parametrize("variant", ["default", "preempted"])
def test_interrupted_multi_step(
    variant: str,
    start: Callable[..., Engine],
    alone: Workloads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a request arrived after any of the passes."""
    draw = random.Random(0)
    forward = MultiStepMixin._forward
    interrupted = []

    def interrupting(runner: Any, *args: Any) -> Any:
        if draw.random() < 0.3:
            runner.is_interrupted = True
            interrupted.append(True)
        return forward(runner, *args)

    monkeypatch.setattr(MultiStepMixin, "_forward", interrupting)
    asks, expected = alone["thinkers"]
    options = ThinkingOptions(max_thought_burst=17, speculative_thoughts=0)
    engine = start(variant, options=options)
    counts, steps = engine.thought_counts(), engine.num_steps
    answers = engine.run(asks)
    assert_same(asks, answers, expected)
    assert len(interrupted) > 20
    counted = difference(engine.thought_counts(), counts)
    assert counted.passes > 1.1 * (engine.num_steps - steps)
    assert_nothing_left(engine)
    assert_counted(counted, asks, answers, None if variant == "preempted" else False)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_shared_prefix(
    asynchronous: bool, checkpoint: Path, engines: EnginePool, alone: Workloads
) -> None:
    asks, expected = alone["shared prefix"]
    engine = engines.get(checkpoint, asynchronous=asynchronous)
    hits = engine.metric("vllm:prefix_cache_hits")
    assert_same(asks, engine.run(asks), expected)
    # Now whole prompts are found in the cache; no thought may have overwritten them.
    assert_same(asks, engine.run(asks), expected)
    assert engine.metric("vllm:prefix_cache_hits") - hits > 200 * NUM_ASKS
    assert_nothing_left(engine)


def test_tensor_parallel(
    checkpoint: Path, alone: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    with thinking_engine(checkpoint, DRAFTING, tensor_parallel_size=2) as engine:
        for name in ("mixed", "gated"):
            asks, expected = alone[name]
            counts = engine.thought_counts()
            answers = engine.run(asks)
            assert_same(asks, answers, expected)
            # Counted once, however many ranks think.
            assert_counted(difference(engine.thought_counts(), counts), asks, answers)


def test_pipeline_parallel(
    checkpoint: Path, alone: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    # Of the two layers each stage has one, and 10 blocks.
    cache = {**SMALL_CACHE, "kv_cache_memory_bytes": 10 * 2 * BLOCK * 32 * 4}
    settings: dict[str, Any] = {**CHUNKED, **cache, "enable_prefix_caching": False}
    with thinking_engine(checkpoint, pipeline_parallel_size=2, **settings) as engine:
        for name in ("mixed", "gated", "thinkers"):
            asks, expected = alone[name]
            counts, preemptions = engine.thought_counts(), engine.preemptions
            answers = engine.run(asks)
            assert_same(asks, answers, expected)
            assert engine.preemptions > preemptions
            assert_nothing_left(engine)
            counted = difference(engine.thought_counts(), counts)
            assert_counted(counted, asks, answers, in_vain=None)


def assert_nothing_left(engine: Engine) -> None:
    assert engine.thought_usage() == {"slots": 0, "recorded_tokens": 0}
    assert not engine.scheduler.requests
    assert not engine.scheduler._thought_tokens
    assert engine.scheduler.get_kv_cache_usage() == 0


def assert_counted(
    counts: ThoughtCounts,
    asks: list[Ask],
    answers: list[list[Answer]],
    in_vain: bool | None = False,
    chunks: bool = False,
) -> None:
    """What the engine has counted is what the answers took; more, where some was thought in vain
    (behind a last token, or before a preemption; None = perhaps), or where prompts were prefilled
    in several passes.
    """
    expected = expected_counts(asks, answers)
    aborted = sum(counts.aborted.values())
    assert in_vain is None or (aborted > 0) == in_vain
    assert counts.thought_tokens - expected.thought_tokens >= aborted
    assert counts.passes <= counts.rows
    assert counts.weights_at_most[-1][1] <= counts.finished
    if in_vain is False:
        # Each draft that was right has saved its request a pass.
        assert counts.thinking_rows + counts.drafts_accepted == expected.thinking_rows
        assert counts.thought_tokens == expected.thought_tokens
        assert counts.finished == expected.finished
        assert counts.skipped == expected.skipped
        assert counts.weights_at_most == expected.weights_at_most
        assert counts.expected_gains_at_most == expected.expected_gains_at_most
        rows = counts.rows + counts.drafts_accepted
        assert rows == expected.rows or (chunks and rows > expected.rows)
