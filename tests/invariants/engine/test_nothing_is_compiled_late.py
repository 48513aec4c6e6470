"""Everything that is compiled is compiled before the engine is ready: no request waits for it."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from vllm.compilation.counter import compilation_counter

from quietstar_infer.params import ThoughtParams
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from quietstar_infer.vllm_plugin.speculation import passes
from tests.support.checkpoints import write_random_gate
from tests.support.engine import Ask, thinking_engine

pytestmark = pytest.mark.slow

DRAFTING: dict[str, Any] = {
    name: function for name, function in vars(passes).items() if hasattr(function, "signatures")
}
PROMPT = [5, 8, 13, 21, 34]


def compilations() -> dict[str, Any]:
    """What Dynamo, AOTAutograd and Inductor have counted in this process, and for how many kinds of
    arguments numba has compiled what drafts thoughts.
    """
    counts: dict[str, Any] = {name: dict(counts) for name, counts in counters.items()}
    drafting = {name: len(function.signatures) for name, function in DRAFTING.items()}
    return deepcopy(counts | {"numba": drafting})


def asks(number: int, **thoughts: Any) -> list[Ask]:
    """So many requests at once, no two of them alike."""
    ways_to_sample: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.9, "seed": 1},
        {"top_k": 5, "temperature": 0.7, "logprobs": 3},
        {"repetition_penalty": 1.2, "min_tokens": 3},
    ]
    return [
        Ask(
            PROMPT * (1 + index % 40),
            ThoughtParams(**thoughts),
            {"max_tokens": 4, **ways_to_sample[index % len(ways_to_sample)]},
            arrival=index // 8,
        )
        for index in range(number)
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the workers are in other processes")
@pytest.mark.parametrize("speculative_thoughts", [0, 8])
def test_no_request_waits_for_a_compiler(
    speculative_thoughts: int, random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = write_random_gate(tmp_path, random_checkpoint("mistral"))
    options = ThinkingOptions(speculative_thoughts=speculative_thoughts)
    with thinking_engine(checkpoint, options, enforce_eager=False) as engine:
        ready = compilations()
        # They are counted here.
        assert ready["stats"]["unique_graphs"] > 0
        assert not speculative_thoughts or sum(ready["numba"].values()) > 0
        for number in (1, 2, 3, 8, 63, 64, 1):
            for temperature in (0.0, 1.0):
                engine.run(asks(number, budget=5, temperature=temperature))
                engine.run(asks(number, budget=5, temperature=temperature, threshold=0.5))
            engine.run(asks(number, budget=0))
            mixed = [*asks(number, budget=3), *asks(1, budget=7), *asks(2, budget=0)]
            engine.run(mixed[: engine.scheduler.max_num_running_reqs])
        assert compilations() == ready


@pytest.mark.skipif(torch.cuda.is_available(), reason="the workers are in other processes")
def test_a_model_is_compiled_at_its_first_start_only(
    random_checkpoint: Callable[[str], Path],
) -> None:
    answers, compiled, loaded = [], [], []
    for _ in range(2):
        with thinking_engine(random_checkpoint("mistral"), enforce_eager=False) as engine:
            answers.append(engine.run(asks(1, budget=3, temperature=0.0)))
            compiled.append(compilation_counter.num_aot_compiles)
            loaded.append(compilation_counter.num_aot_artifacts_loaded)
    assert compiled[1] == compiled[0]
    assert loaded[1] == loaded[0] + 1
    assert answers[1] == answers[0]
