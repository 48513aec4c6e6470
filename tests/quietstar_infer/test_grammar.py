"""Structured outputs and thoughts: the grammar binds what is said, not what is thought."""

import re
from pathlib import Path

import pytest
from vllm import SamplingParams
from vllm.inputs import TextPrompt
from vllm.sampling_params import StructuredOutputsParams

from tests.support.engine import thinking_engine

DEMO = Path(__file__).parents[2] / "models" / "demo"
PATTERN = r" [0-9]{1,2} [a-z]{3,5}\."


@pytest.mark.parametrize("asynchronous", [False, True])
def test_grammar_binds_the_visible_text_only(asynchronous: bool) -> None:
    with thinking_engine(DEMO, asynchronous=asynchronous) as engine:
        outputs = engine.llm.generate(
            [TextPrompt(prompt="Ann has 3 apples. Now she has")] * 3,
            [
                SamplingParams(
                    temperature=1.0,
                    seed=seed,
                    max_tokens=30,
                    structured_outputs=StructuredOutputsParams(regex=PATTERN),
                    extra_args={"thought_budget": budget, "thought_record_key": f"grammar-{seed}"},
                )
                for seed, budget in enumerate([0, 3, 8])
            ],
            use_tqdm=False,
        )
        tokenizer = engine.llm.get_tokenizer()
        for seed, output in enumerate(outputs):
            assert re.fullmatch(PATTERN, output.outputs[0].text)
            for thoughts in engine.take_thoughts(f"grammar-{seed}").values():
                said = [tokenizer.decode(thought["token_ids"]) for thought in thoughts]
                assert not all(re.fullmatch(PATTERN, thought) for thought in said)
