"""Budget 0 equals stock vLLM serving the same base model, but for the meta-tokens in its
distribution.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm import LLM, RequestOutput, SamplingParams
from vllm.inputs import TokensPrompt

from quietstar_infer.checkpoint import load_tensors, thought_tensor_shapes
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from tests.support.checkpoints import (
    END_ID,
    FAMILIES,
    NUM_PLAIN_TOKENS,
    START_ID,
    VOCAB_SIZE,
    save_checkpoint,
)
from tests.support.engine import EnginePool, stock_engine, thinking_engine

pytestmark = pytest.mark.slow

PROMPTS = [[1, 35, 61, 10, 41], [1, *range(3, 60)], [1, *range(3, 60), *range(3, 40)], [1]]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.8, "seed": 8, "top_p": 0.8, "repetition_penalty": 1.2},
]


def write_base_model(folder: Path, checkpoint: Path) -> Path:
    """The checkpoint without mixing head and meta-token embeddings, for stock vLLM."""
    config = json.loads((checkpoint / "config.json").read_text())
    tensors = load_tensors(checkpoint)
    for name in thought_tensor_shapes(config["hidden_size"]):
        del tensors[name]
    save_checkpoint(folder, config, tensors)
    return folder


def answers(llm: LLM, extra: dict[str, Any]) -> list[RequestOutput]:
    asks = [(prompt, sampling) for prompt in PROMPTS for sampling in SAMPLING]
    return llm.generate(
        [TokensPrompt(prompt_token_ids=prompt) for prompt, _ in asks],
        [
            SamplingParams(
                max_tokens=24,
                logprobs=VOCAB_SIZE,
                prompt_logprobs=VOCAB_SIZE,
                ignore_eos=True,
                **sampling,
                **extra,
            )
            for _, sampling in asks
        ],
        use_tqdm=False,
    )


def without_meta_tokens(logprobs: dict[int, Any]) -> list[float]:
    """Log-probabilities of the plain tokens, normalised among themselves, by token id."""
    plain = [logprobs[token].logprob for token in range(NUM_PLAIN_TOKENS)]
    total = math.log(sum(math.exp(value) for value in plain))
    return [value - total for value in plain]


@pytest.mark.parametrize("family", FAMILIES)
def test_budget_0_equals_stock_vllm(
    family: str,
    engines: EnginePool,
    random_checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    checkpoint = random_checkpoint(family)
    with stock_engine(write_base_model(tmp_path, checkpoint)) as stock:
        # vLLM reports logprobs before the bias, so this bans the meta-tokens and shows them still.
        ban = {"logit_bias": {START_ID: -100.0, END_ID: -100.0}}
        expected = answers(stock, ban)
    actual = answers(engines.get(checkpoint).llm, {"extra_args": {"thought_budget": 0}})

    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.outputs[0].token_ids == theirs.outputs[0].token_ids
        assert ours.outputs[0].text == theirs.outputs[0].text
        assert ours.outputs[0].logprobs is not None
        assert theirs.outputs[0].logprobs is not None
        assert ours.prompt_logprobs is not None
        assert theirs.prompt_logprobs is not None
        pairs = [
            *zip(ours.outputs[0].logprobs, theirs.outputs[0].logprobs, strict=True),
            *zip(ours.prompt_logprobs[1:], theirs.prompt_logprobs[1:], strict=True),
        ]
        for our_logprobs, their_logprobs in pairs:
            assert our_logprobs is not None
            assert their_logprobs is not None
            plain = [our_logprobs[token].logprob for token in range(NUM_PLAIN_TOKENS)]
            assert plain == pytest.approx(without_meta_tokens(their_logprobs), abs=1e-4)
            assert our_logprobs[START_ID].logprob == our_logprobs[END_ID].logprob == -math.inf


def test_an_engine_with_thinking_off_has_no_lookahead(
    random_checkpoint: Callable[[str], Path],
) -> None:
    with thinking_engine(
        random_checkpoint("llama"), ThinkingOptions(max_thought_budget=0)
    ) as engine:
        assert engine.scheduler.num_lookahead_tokens == 0
        (answer,) = engine.llm.generate(
            TokensPrompt(prompt_token_ids=PROMPTS[0]), SamplingParams(max_tokens=3), use_tqdm=False
        )
        assert len(answer.outputs[0].token_ids) > 0
