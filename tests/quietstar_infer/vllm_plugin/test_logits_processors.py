"""A given text, scored by the engine, against recorded runs of the official code; and rows of a
batch from which nothing can be sampled."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.logits_processors import (
    NONE_LEFT,
    NOT_FINITE,
    SampleCheck,
    failure_marks,
)
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from tests.support.checkpoints import GOLDEN, write_wide_heads
from tests.support.engine import Ask, Engine, EnginePool

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3


class Recording(NamedTuple):
    """A recording of greedy thoughts, and the factor by which its heads are too small for vLLM's
    attention on the CPU. The one with sampled thoughts drew them from a generator that is not ours:
    test_reference.py repeats it.
    """

    case: str
    widen: int = 1
    options: ThinkingOptions = ThinkingOptions()
    asynchronous: bool = False


RECORDINGS = [
    Recording("engine_greedy_n4"),
    Recording("engine_greedy_n4", asynchronous=True),
    Recording("engine_greedy_n8"),
    Recording("engine_greedy_n8", asynchronous=True),
    Recording("greedy_n4", widen=2),
    Recording("greedy_n8", widen=2),
    Recording("script_greedy_n8", widen=2, options=ThinkingOptions(embedding_mode="reset")),
]


def forced(text: list[int], prompt_length: int, budget: int) -> Ask:
    """A request with the text's first tokens as its prompt and the rest as its forced tokens."""
    given = text[prompt_length:]
    return Ask(
        text[:prompt_length],
        ThoughtParams(budget, 0.0, forced_tokens=tuple(given)),
        {"max_tokens": len(given), "logprobs": -1, "ignore_eos": True},
    )


def logprobs(engine: Engine, key: str) -> list[dict[int, float]]:
    """For each forced token, those of the whole vocabulary."""
    while engine.llm.llm_engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished and output.request_id == key:
                found = output.outputs[0].logprobs
                assert found is not None
                return [{id_: entry.logprob for id_, entry in each.items()} for each in found]
    raise AssertionError("the request has ended without an output")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.case)
def test_official_log_probabilities_at_every_position(
    recording: Recording, engines: EnginePool, tmp_path: Path
) -> None:
    case, widen, options, asynchronous = recording
    checkpoint = GOLDEN / case / "checkpoint"
    if widen > 1:
        checkpoint = write_wide_heads(tmp_path, checkpoint, widen)
    facts = json.loads((GOLDEN / case / "case.json").read_text())
    expected = load_file(GOLDEN / case / "expected.safetensors")
    budget = facts["n_ahead"] - 3
    engine = engines.get(checkpoint, options, asynchronous)
    for prompt in range(len(facts["prompts"])):
        text = expected[f"p{prompt}.input_ids"][0].tolist()
        for prompt_length in {1, (len(text) + 1) // 2} - {len(text)}:
            key = engine.add(forced(text, prompt_length, budget))
            scored = logprobs(engine, key)
            thoughts = engine.take_thoughts(key)
            (kept,) = thoughts.values()
            assert [t["token_ids"] for t in kept[: len(scored)]] == [
                expected[f"p{prompt}.thought_ids"][0, position].tolist()[1:-1]
                for position in range(prompt_length - 1, len(text) - 1)
            ]
            for position, entries in enumerate(scored, start=prompt_length - 1):
                assert_equal(entries, expected[f"p{prompt}.logits"][0, position])


def assert_equal(entries: dict[int, float], logits_V: torch.Tensor) -> None:
    """Equal up to the two meta-tokens, which the engine masks and the official code does not."""
    visible = sorted(id_ for id_, value in entries.items() if value != float("-inf"))
    assert len(visible) == len(logits_V) - 2
    torch.testing.assert_close(
        torch.tensor([entries[id_] for id_ in visible]),
        logits_V[visible].log_softmax(-1),
        rtol=1e-5,
        atol=TOLERANCE,
    )


def test_other_rows_of_the_batch_sample_freely(engines: EnginePool) -> None:
    """A row whose tokens are forced shares its batch with one whose are not."""
    engine = engines.get(GOLDEN / "engine_greedy_n4" / "checkpoint")
    free = Ask([5, 6, 7], ThoughtParams(2, 0.0), {"max_tokens": 6, "ignore_eos": True})
    text = [9, 8, 7, 6, 5, 4, 3, 10, 11]
    (alone,) = engine.run([free])
    given, beside = engine.run([forced(text, 2, 2), free])
    assert given[0].token_ids == text[2:]
    assert beside[0].token_ids == alone[0].token_ids
    assert beside[0].thoughts == alone[0].thoughts


def test_rows_that_nothing_can_be_sampled_from_are_marked() -> None:
    nan, inf = torch.nan, torch.inf
    logits_NV = torch.tensor(
        [
            [0.5, -inf, 2.0],
            [0.5, nan, 2.0],
            [nan, nan, nan],
            [0.5, inf, 2.0],
            [-inf, -inf, -inf],
            [-inf, nan, -inf],
        ]
    )
    check = SampleCheck(meta_token_ids=(64, 65))
    assert check.apply(logits_NV) is logits_NV
    sampled_N = torch.tensor([2, 1, 0, 1, 0, 1], dtype=torch.int32)
    marked_N = check.mark(sampled_N)
    assert marked_N.tolist() == [2, 64, 64, 64, 65, 64]
    assert marked_N.dtype == torch.int32
    marks = failure_marks((64, 65))
    assert (marks[NOT_FINITE], marks[NONE_LEFT]) == (64, 65)
