"""Structured outputs: the grammar constrains the visible text, not the thoughts."""

import re
from pathlib import Path
from typing import Any

import pytest
from vllm import RequestOutput, SamplingParams
from vllm.inputs import TextPrompt
from vllm.sampling_params import StructuredOutputsParams

from quietstar_infer.reference import ReferenceDecoder, seeded_thought
from tests.support.engine import thinking_engine

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[3] / "models" / "demo"
PATTERN = r" [0-9]{1,2} [a-z]{3,5}\."
BUDGETS = [0, 3, 8]


@pytest.mark.parametrize(
    "settings", [{}, {"asynchronous": True}, {"pipeline_parallel_size": 2}], ids=str
)
def test_grammar_constrains_the_visible_text_only(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pipeline_parallel_size" in settings:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    with thinking_engine(DEMO, **settings) as engine:
        outputs = engine.llm.generate(
            [TextPrompt(prompt="Ann has 3 apples. Now she has")] * len(BUDGETS),
            [
                SamplingParams(
                    temperature=1.0,
                    seed=seed,
                    max_tokens=30,
                    structured_outputs=StructuredOutputsParams(regex=PATTERN),
                    extra_args={
                        "thought_budget": budget,
                        "thought_threshold": 0,
                        "thought_record_key": f"grammar-{seed}",
                    },
                )
                for seed, budget in enumerate(BUDGETS)
            ],
            use_tqdm=False,
        )
        tokenizer = engine.llm.get_tokenizer()
        recorded = [engine.take_thoughts(f"grammar-{seed}") for seed in range(len(outputs))]
    for output, by_request in zip(outputs, recorded, strict=True):
        assert re.fullmatch(PATTERN, output.outputs[0].text)
        for thoughts in by_request.values():
            texts = [tokenizer.decode(thought["token_ids"]) for thought in thoughts]
            assert not all(re.fullmatch(PATTERN, text) for text in texts)
    (thoughts,) = recorded[1].values()
    assert_logprobs_are_those_without_a_grammar(outputs[1], thoughts, seed=1, budget=BUDGETS[1])


def assert_logprobs_are_those_without_a_grammar(
    output: RequestOutput, thoughts: list[dict[str, Any]], seed: int, budget: int
) -> None:
    reference = ReferenceDecoder.from_checkpoint(DEMO)
    text = list(output.prompt_token_ids or ())
    for token, thought in zip(output.outputs[0].token_ids, thoughts, strict=False):
        prediction = reference.predict(text, budget, seeded_thought(seed, 1.0))
        for name, logits_V in (
            ("base_logprob", prediction.base_logits_V),
            ("mixed_logprob", prediction.logits_V),
        ):
            expected = float(logits_V.log_softmax(-1)[token])
            assert thought[name] == pytest.approx(expected, abs=1e-3)
        text.append(token)
