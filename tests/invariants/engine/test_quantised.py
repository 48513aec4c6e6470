"""Quantised checkpoints think as the unquantised ones of the same weights do."""

from pathlib import Path

import pytest
import torch

from quietstar_infer.params import ThoughtParams
from tests.support.engine import Ask, EnginePool
from tests.support.quantised import SCHEMES, write_quantised
from tests.support.servers import DEMO

pytestmark = pytest.mark.slow

# Of 16-bit arithmetic, and of activations in 8 bits.
TOLERANCE = 0.1
TEXTS = [[1, 5, 9, 33], [1, *range(10, 40)], [1, 7, 7, 7, 50, 12]]


def predictions(
    engines: EnginePool, checkpoint: Path, budget: int, cache: str = "auto"
) -> torch.Tensor:
    """The log-probabilities of the first token of each answer, (text, token)."""
    engine = engines.get(checkpoint, dtype="bfloat16", kv_cache_dtype=cache)
    sampling = {"max_tokens": 1, "logprobs": -1}
    keys = [engine.add(Ask(text, ThoughtParams(budget, 0.0), sampling)) for text in TEXTS]
    found = {}
    while engine.llm.llm_engine.has_unfinished_requests():
        for output in engine.step():
            assert output.outputs[0].logprobs is not None
            (logprobs,) = output.outputs[0].logprobs
            assert logprobs is not None
            found[output.request_id] = [
                logprobs[token].logprob for token in sorted(logprobs) if token < 64
            ]
    thoughts = [engine.take_thoughts(key) for key in keys]
    assert all(len(it[0]["token_ids"]) == budget for by in thoughts for it in by.values())
    return torch.tensor([found[key] for key in keys])


@pytest.mark.parametrize("name", SCHEMES)
def test_a_quantised_checkpoint_thinks_like_the_unquantised(
    name: str, engines: EnginePool, tmp_path: Path
) -> None:
    twins = write_quantised(tmp_path, SCHEMES[name])
    for budget in (0, 3):
        quantised = predictions(engines, twins.quantised, budget)
        dense = predictions(engines, twins.dense, budget)
        assert quantised.isfinite().all()
        difference = (quantised.exp() - dense.exp()).abs().max()
        print(name, budget, float(difference))
        assert difference < TOLERANCE


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="needs AVX-512")
def test_a_cache_in_8_bits_thinks_like_one_in_16(engines: EnginePool) -> None:
    """Thoughts are read from the cache (`--kv-cache-dtype fp8`). Of a trained model: the small
    random ones are made to change their minds for little.
    """
    small = predictions(engines, DEMO, 3, "fp8")
    difference = (small.exp() - predictions(engines, DEMO, 3).exp()).abs().max()
    print(float(difference))
    assert 0 < difference < TOLERANCE
