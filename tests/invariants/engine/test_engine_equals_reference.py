"""The engine equals the reference decoder: four base models, greedy and sampled."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quietstar_infer.params import ThoughtParams
from quietstar_infer.reference import (
    ChooseVisible,
    ReferenceDecoder,
    greedy,
    greedy_thought,
    seeded_thought,
)
from tests.support.checkpoints import FAMILIES
from tests.support.engine import Ask, EnginePool

pytestmark = pytest.mark.slow

PROMPTS = [[1, 35, 61, 10, 41], [1, *range(3, 40)], [1]]
MAX_TOKENS = 12


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


@pytest.mark.parametrize("family", FAMILIES)
def test_engine_equals_reference(
    family: str, engines: EnginePool, random_checkpoint: Callable[[str], Path]
) -> None:
    checkpoint = random_checkpoint(family)
    reference = ReferenceDecoder.from_checkpoint(checkpoint)
    asks, expected = [], []
    for seed, prompt in enumerate(PROMPTS):
        for budget in (1, 2, 5):
            common = {"max_tokens": MAX_TOKENS, "ignore_eos": True, "seed": seed}
            asks += [
                Ask(prompt, ThoughtParams(budget, 0.0), {**common, "temperature": 0.0}),
                Ask(prompt, ThoughtParams(budget, 1.0), {**common, "temperature": 1.0}),
            ]
            drawn, sample = seeded_thought(seed, 1.0), vllm_sampler(seed)
            expected += [
                reference.generate(prompt, MAX_TOKENS, budget, greedy_thought, greedy),
                reference.generate(prompt, MAX_TOKENS, budget, drawn, sample),
            ]
    answers = [answer for (answer,) in engines.get(checkpoint).run(asks)]
    for answer, (tokens, predictions) in zip(answers, expected, strict=True):
        assert answer.token_ids == tokens
        assert answer.thoughts == [prediction.thought_ids for prediction in predictions]
        assert answer.mixing_weights == pytest.approx(
            [prediction.mixing_weight for prediction in predictions], abs=1e-4
        )
        assert answer.base_logprobs == pytest.approx(
            logprobs(tokens, [prediction.base_logits_V for prediction in predictions]), abs=1e-4
        )
        assert answer.mixed_logprobs == pytest.approx(
            logprobs(tokens, [prediction.logits_V for prediction in predictions]), abs=1e-4
        )
