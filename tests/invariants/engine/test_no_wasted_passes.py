"""No wasted pass: what runs, counted where it runs.

A thought of b tokens takes b + 1 passes, also before the first visible token, which shares the
prefill's. Each of them feeds the base model one token, and START or END in the same pass, computes
one row of logits, and only the last one mixes. With drafts a pass feeds more, and a right one saves
a pass: what is counted then is in test_alone_equals_batched.py.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from quietstar_infer.mixing import MixingHead
from quietstar_infer.vllm_plugin.options import ThinkingOptions
from tests.support.engine import BLOCK, SCHEDULES, Engine, EnginePool

pytestmark = pytest.mark.slow

PROMPT = [1, *range(3, 20)]
MAX_TOKENS = 3
# Too short a text for a KV block to be found again in the prefix cache.
assert len(PROMPT) + 1 + MAX_TOKENS < BLOCK


WITHOUT_DRAFTS: dict[str, dict[str, Any]] = {
    **{name: schedule for name, schedule in SCHEDULES.items() if name != "speculative"},
    "as served": {"options": ThinkingOptions(speculative_thoughts=0)},
}


@pytest.fixture(params=WITHOUT_DRAFTS)
def engine(
    request: pytest.FixtureRequest,
    engines: EnginePool,
    random_checkpoint: Callable[[str], Path],
) -> Engine:
    """Each schedule, and the default one: whole thoughts in one engine step."""
    return engines.get(random_checkpoint("llama"), **WITHOUT_DRAFTS[request.param])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows that go into the base model, the language-model head and the mixing head."""
    counts: Counter[str] = Counter()
    head, mixing = LogitsProcessor.forward, MixingHead.weight
    model = GPUModelRunner._model_forward

    def counted_head(self: Any, lm_head: Any, hidden_NH: torch.Tensor, *rest: Any) -> Any:
        counts["head"] += len(hidden_NH)
        return head(self, lm_head, hidden_NH, *rest)

    def counted_mixing(self: Any, base_NH: torch.Tensor, thought_NH: torch.Tensor) -> Any:
        counts["mixing"] += len(base_NH)
        return mixing(self, base_NH, thought_NH)

    def counted_model(self: Any, input_ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        counts["model"] += len(input_ids)
        counts["passes"] += 1
        return model(self, input_ids, *rest, **named)

    monkeypatch.setattr(LogitsProcessor, "forward", counted_head)
    monkeypatch.setattr(MixingHead, "weight", counted_mixing)
    monkeypatch.setattr(GPUModelRunner, "_model_forward", counted_model)
    return counts


def generate(engine: Engine, budgets: list[int], tokens: int) -> None:
    """No request asks to see its thoughts: logging one takes another row of logits."""
    engine.llm.generate(
        [TokensPrompt(prompt_token_ids=[*PROMPT, 20 + i]) for i in range(len(budgets))],
        [
            SamplingParams(
                max_tokens=tokens, ignore_eos=True, extra_args={"thought_budget": budget}
            )
            for budget in budgets
        ],
        use_tqdm=False,
    )


def fed(budget: int, tokens: int) -> int:
    """Tokens through the base model: the prompt, visible tokens but the last, and all thoughts with
    START and END.
    """
    text = len(PROMPT) + 1 + tokens - 1
    return text + tokens * (budget + 2 if budget else 0)


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("tokens", [1, MAX_TOKENS])
def test_one_request(engine: Engine, rows: Counter[str], budget: int, tokens: int) -> None:
    generate(engine, [budget], tokens)
    passes = tokens * (budget + 1)
    assert rows["passes"] == rows["head"] == passes
    assert rows["mixing"] == (tokens if budget else 0)
    assert rows["model"] == fed(budget, tokens)


def test_a_given_thought_takes_two_passes_where_thoughts_are_drafted(
    engines: EnginePool, random_checkpoint: Callable[[str], Path], rows: Counter[str]
) -> None:
    """Its first token behind START, then all of it."""
    engine = engines.get(random_checkpoint("llama"), **SCHEDULES["speculative"])
    fields = {"thought_budget": 0, "first_thought": [5, 6, 7, 8, 9, 10]}
    engine.llm.generate(
        TokensPrompt(prompt_token_ids=PROMPT),
        SamplingParams(max_tokens=1, ignore_eos=True, extra_args=fields),
        use_tqdm=False,
    )
    assert (rows["passes"], rows["head"], rows["mixing"]) == (2, 6 + 1, 1)
    assert rows["model"] == len(PROMPT) + 6 + 2


def test_a_mixed_batch(engine: Engine, rows: Counter[str]) -> None:
    budgets = [0, 0, 1, 4, 8]
    generate(engine, budgets, tokens=3)
    assert rows["head"] == sum(3 * (budget + 1) for budget in budgets)
    assert rows["mixing"] == 3 * sum(budget > 0 for budget in budgets)
    assert rows["model"] == sum(fed(budget, 3) for budget in budgets)
    # As many as the longest needs: no request waits for another, and none runs alone.
    assert rows["passes"] == 3 * (max(budgets) + 1)
