"""No wasted pass: what runs, counted where it runs.

A thought of b tokens takes b + 1 passes, the first token after a prefill included; each of them
feeds the trunk one token and what rides along, reads one row of logits, and only the last one
mixes.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from quietstar_infer.mixing import MixingHead
from tests.support.checkpoints import write_random_checkpoint
from tests.support.engine import Engine, thinking_engine

PROMPT = [1, *range(3, 20)]


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "asynchronous"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    checkpoint = write_random_checkpoint(tmp_path_factory.mktemp("waste"), "llama")
    with thinking_engine(
        checkpoint, asynchronous=request.param, enable_prefix_caching=False
    ) as running:
        yield running


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows that go into the trunk, the language-model head and the mixing head."""
    counts: Counter[str] = Counter()
    head, mixing = LogitsProcessor.forward, MixingHead.weight
    trunk = GPUModelRunner._model_forward

    def counted_head(self: Any, lm_head: Any, hidden_NH: torch.Tensor, *rest: Any) -> Any:
        counts["head"] += len(hidden_NH)
        return head(self, lm_head, hidden_NH, *rest)

    def counted_mixing(self: Any, base_NH: torch.Tensor, thought_NH: torch.Tensor) -> Any:
        counts["mixing"] += len(base_NH)
        return mixing(self, base_NH, thought_NH)

    def counted_trunk(self: Any, input_ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        counts["trunk"] += len(input_ids)
        counts["passes"] += 1
        return trunk(self, input_ids, *rest, **named)

    monkeypatch.setattr(LogitsProcessor, "forward", counted_head)
    monkeypatch.setattr(MixingHead, "weight", counted_mixing)
    monkeypatch.setattr(GPUModelRunner, "_model_forward", counted_trunk)
    return counts


def generate(engine: Engine, budgets: list[int], tokens: int) -> None:
    """Nobody asks to see the thoughts: to show them takes a row of logits more."""
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
    """Tokens through the trunk: the prompt, visible tokens but the last, and all thoughts with
    START and END.
    """
    text = len(PROMPT) + 1 + tokens - 1
    return text + tokens * (budget + 2 if budget else 0)


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("tokens", [1, 3])
def test_one_request(engine: Engine, rows: Counter[str], budget: int, tokens: int) -> None:
    generate(engine, [budget], tokens)
    passes = tokens * (budget + 1)
    assert rows["passes"] == rows["head"] == passes
    assert rows["mixing"] == (tokens if budget else 0)
    assert rows["trunk"] == fed(budget, tokens)


def test_a_mixed_batch(engine: Engine, rows: Counter[str]) -> None:
    budgets = [0, 0, 1, 4, 8]
    generate(engine, budgets, tokens=3)
    assert rows["head"] == sum(3 * (budget + 1) for budget in budgets)
    assert rows["mixing"] == 3 * sum(budget > 0 for budget in budgets)
    assert rows["trunk"] == sum(fed(budget, 3) for budget in budgets)
    # As many as the longest needs: nobody waits for another, and nobody runs alone.
    assert rows["passes"] == 3 * (max(budgets) + 1)
