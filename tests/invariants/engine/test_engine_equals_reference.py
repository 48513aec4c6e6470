"""The engine equals the reference decoder: four base models, greedy and sampled."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quietstar_infer.params import ThoughtParams
from quietstar_infer.reference import (
    ChooseVisible,
    Prediction,
    ReferenceDecoder,
    greedy,
    greedy_thought,
    seeded_thought,
)
from tests.support.checkpoints import FAMILIES, write_random_gate
from tests.support.engine import Answer, Ask, EnginePool

pytestmark = pytest.mark.slow

PROMPTS = [[1, 35, 61, 10, 41], [1, *range(3, 40)], [1]]
MAX_TOKENS = 12
GIVEN = (40, 7, 7, 22)


def vllm_sampler(seed: int) -> ChooseVisible:
    """What vLLM's CPU sampler draws at temperature 1 for a seeded request (by its own kernel)."""
    generator = torch.Generator().manual_seed(seed)

    def sample(logits_V: torch.Tensor) -> int:
        noise_seed = torch.randint(0, 2**31, (1,), generator=generator)
        return int(torch.ops._C.fused_gumbel_argmax(logits_V[None].contiguous(), noise_seed))

    return sample


def logprobs(tokens: list[int], logits: list[torch.Tensor]) -> list[float]:
    """Of each token, by the prediction that it was sampled from."""
    return [
        float(logits_V.log_softmax(-1)[token])
        for token, logits_V in zip(tokens, logits, strict=True)
    ]


# Thoughts are expected to save more than this at about half of the positions, nats.
LEARNED, ENTROPY = 0.95, 1.6
SURE_OF_ITSELF = {"qwen2": 0.01}


@pytest.mark.parametrize("family", FAMILIES)
def test_engine_equals_reference(
    family: str, engines: EnginePool, random_checkpoint: Callable[[str], Path]
) -> None:
    check(random_checkpoint(family), engines, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_gate(
    family: str, engines: EnginePool, random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = write_random_gate(tmp_path, random_checkpoint(family))
    assert 0.2 < check(checkpoint, engines, LEARNED) < 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_entropy_for_a_gate(
    family: str, engines: EnginePool, random_checkpoint: Callable[[str], Path]
) -> None:
    threshold = SURE_OF_ITSELF.get(family, ENTROPY)
    assert 0.1 < check(random_checkpoint(family), engines, threshold) < 0.9


def check(checkpoint: Path, engines: EnginePool, threshold: float) -> float:
    """Compare answers, greedy and sampled; returns the share of tokens that were thought about."""
    engine = engines.get(checkpoint)
    reference = ReferenceDecoder.from_checkpoint(checkpoint)
    asks: list[Ask] = []
    expected: list[tuple[list[int], list[Prediction]]] = []
    for seed, prompt in enumerate(PROMPTS):
        for budget in (1, 2, 5):
            common = {"max_tokens": MAX_TOKENS, "ignore_eos": True, "seed": seed}
            for temperature in (0.0, 1.0):
                params = ThoughtParams(budget, temperature, threshold)
                asks.append(Ask(prompt, params, {**common, "temperature": temperature}))
            drawn, sample = seeded_thought(seed, 1.0), vllm_sampler(seed)
            for think, choose in ((greedy_thought, greedy), (drawn, sample)):
                expected.append(
                    reference.generate(prompt, MAX_TOKENS, budget, think, choose, threshold)
                )
        # A given thought, of another length than those after it, if there are any.
        for budget in (0, 2):
            params = ThoughtParams(budget, 0.0, threshold, first_thought=GIVEN)
            asks.append(Ask(prompt, params, {"max_tokens": 4, "ignore_eos": True}))
            expected.append(
                reference.generate(prompt, 4, budget, threshold=threshold, first_thought=GIVEN)
            )
    answers = [answer for (answer,) in engine.run(asks)]
    for answer, (tokens, predictions) in zip(answers, expected, strict=True):
        check_answer(answer, tokens, predictions)
    thoughts = [thought for answer in answers for thought in answer.thoughts]
    return sum(map(bool, thoughts)) / len(thoughts)


def check_answer(answer: Answer, tokens: list[int], predictions: list[Prediction]) -> None:
    assert answer.token_ids == tokens
    # At budget 0 only a given thought has a prediction.
    tokens = tokens[: len(predictions)]
    assert answer.thoughts == [prediction.thought_ids for prediction in predictions]
    assert answer.mixing_weights == pytest.approx(
        [prediction.mixing_weight for prediction in predictions], abs=1e-4
    )
    assert answer.expected_gains == pytest.approx(
        [prediction.expected_gain for prediction in predictions], abs=1e-4
    )
    assert answer.base_logprobs == pytest.approx(
        logprobs(tokens, [prediction.base_logits_V for prediction in predictions]), abs=1e-4
    )
    assert answer.mixed_logprobs == pytest.approx(
        logprobs(tokens, [prediction.logits_V for prediction in predictions]), abs=1e-4
    )
