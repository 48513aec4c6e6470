"""A text for which the model computes NaN ends in an error, whatever it is batched with, and leaves
nothing behind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.logits_processors import NOT_FINITE
from tests.support.checkpoints import write_overflowing
from tests.support.engine import BLOCK, SCHEDULES, Answer, Ask, EnginePool

pytestmark = pytest.mark.slow

BAD = 63
FINE = [1, 5, 6, 7]
# More than a block, and more than a step prefills.
LONG = [1, *(3 + index % 40 for index in range(150))]
THOUGHTS = [ThoughtParams(0), ThoughtParams(3, 0.0), ThoughtParams(4, 1.0, threshold=1.0)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overflowing(tmp_path_factory.mktemp("model"), BAD)


def asks(prompt: Sequence[int]) -> list[Ask]:
    # The bad token must not be sampled either.
    sampling = {"max_tokens": 6, "ignore_eos": True, "seed": 3, "logit_bias": {BAD: -100.0}}
    return [Ask(prompt, thoughts, sampling) for thoughts in THOUGHTS]


def samples(answers: Sequence[Sequence[Answer]]) -> list[tuple[list[int], list[list[int]]]]:
    return [(answer.token_ids, answer.thoughts) for (answer,) in answers]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_texts_with_nan_fail_beside_others_that_do_not(
    checkpoint: Path, schedule: str, engines: EnginePool
) -> None:
    # So few blocks that those of failed requests are used again at once.
    cache = 24 * BLOCK * 2 * 2 * 32 * 4
    # All thoughts are logged.
    options = replace(SCHEDULES[schedule]["options"], max_recorded_thought_tokens=1_000)
    engine = engines.get(
        checkpoint,
        options,
        SCHEDULES[schedule]["asynchronous"],
        max_num_batched_tokens=128,
        kv_cache_memory_bytes=cache,
        max_model_len=256,
    )
    alone = samples([engine.run([ask])[0] for ask in (*asks(FINE), *asks(LONG))])
    for _ in range(3):
        good, bad = [*asks(FINE), *asks(LONG)], [*asks([1, BAD, 5]), *asks([*LONG, BAD, 5])]
        answers = engine.run([ask for pair in zip(good, bad, strict=True) for ask in pair])
        assert samples(answers[::2]) == alone
        assert [answer.finish_reason for (answer,) in answers[1::2]] == ["error"] * len(bad)
        assert [answer.token_ids for (answer,) in answers[1::2]] == [[]] * len(bad)
    engine.drain()
    assert engine.thought_usage()["slots"] == 0


def test_the_engine_says_why(checkpoint: Path, engines: EnginePool) -> None:
    engine = engines.get(checkpoint)
    engine.add(Ask([1, BAD], ThoughtParams(2, 0.0), {"max_tokens": 3}))
    outputs = []
    while engine.llm.llm_engine.has_unfinished_requests():
        outputs += engine.step()
    (output,) = outputs
    (choice,) = output.outputs
    assert (choice.finish_reason, choice.stop_reason) == ("error", NOT_FINITE)
