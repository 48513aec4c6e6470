"""The life of thoughts on a worker, pass by pass, with a model that returns what the test wants."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from vllm.config import CompilationMode, VllmConfig

from quietstar_infer.config import QuietStarConfig
from quietstar_infer.params import ThoughtLimits
from quietstar_infer.vllm_plugin.model import QuietStarMixin
from quietstar_infer.vllm_plugin.options import ThinkingSetup
from quietstar_infer.vllm_plugin.schedule_plan import ThinkingRequest, ThoughtStep
from quietstar_infer.vllm_plugin.thought_rows import collect_rows
from quietstar_infer.vllm_plugin.thought_state import ThoughtBatch, ThoughtState

CPU = torch.device("cpu")
START, END, VOCAB_SIZE = 8, 9, 10
WEIGHT = 0.25


class Model:
    """Hidden states are logits, and every thought has the same mixing weight. A thought is expected
    to save as many nats as its base's likeliest token has.
    """

    thought_gate = None

    def expected_gain(
        self, base_NH: torch.Tensor, logits_NV: torch.Tensor, budget_N: torch.Tensor
    ) -> torch.Tensor:
        return base_NH.argmax(dim=-1).float()

    def compute_logits(self, hidden_NH: torch.Tensor) -> torch.Tensor:
        return hidden_NH

    def mix_thoughts(
        self, base_NH: torch.Tensor, thought_NH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weight_N1 = torch.full((len(base_NH), 1), WEIGHT)
        return (1 - weight_N1) * base_NH + weight_N1 * thought_NH, weight_N1


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> ThoughtState:
    setup = ThinkingSetup(QuietStarConfig(START, END), ThoughtLimits(4, 2), 100, 1)
    monkeypatch.setattr(
        "quietstar_infer.vllm_plugin.thought_state.thinking_setup", lambda config: setup
    )
    model_config = SimpleNamespace(
        dtype=torch.float32,
        get_vocab_size=lambda: VOCAB_SIZE,
        get_hidden_size=lambda: VOCAB_SIZE,
    )
    config = SimpleNamespace(
        model_config=model_config,
        scheduler_config=SimpleNamespace(max_num_seqs=4),
        compilation_config=SimpleNamespace(mode=CompilationMode.NONE),
    )
    return ThoughtState(cast(VllmConfig, config), cast(QuietStarMixin, Model()), CPU)


def greedy(
    record_key: str | None = None,
    forced_tokens: tuple[int, ...] = (),
    threshold: float = 0.0,
    first_thought: tuple[int, ...] = (),
) -> ThinkingRequest:
    return ThinkingRequest(0, 0.0, threshold, record_key, forced_tokens, first_thought)


def likely(token: int) -> list[float]:
    """A hidden state, which is logits, too, in which one token stands out."""
    return [3.0 if id_ == token else 0.0 for id_ in range(VOCAB_SIZE)]


def prepare(
    state: ThoughtState, steps: dict[str, ThoughtStep], lengths: list[int]
) -> tuple[ThoughtBatch, list[int]]:
    """A pass of requests "a", "b" … in rows of these lengths, and the tokens that are fed; those of
    the text are 0.
    """
    rows = collect_rows(steps, {name: row for row, name in enumerate("abcd")})
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    input_N = torch.zeros(sum(lengths), dtype=torch.int32)
    positions = np.full(len(steps), 20)
    batch = state.prepare_inputs(rows, positions, starts, input_N)
    return batch, input_N.tolist()


def test_a_thought_from_its_first_pass_to_the_mixed_logits(state: ThoughtState) -> None:
    state.add_request("a", greedy(record_key="key"))
    step = ThoughtStep.first(budget=2, index=6)

    # Phase 0, behind a prompt of three tokens: START is fed, the base kept, t_1 sampled.
    batch, fed = prepare(state, {"a": step}, [4])
    assert fed == [0, 0, 0, START]
    base = likely(1)
    batch = state.process_hidden_states(
        batch, torch.tensor([likely(0), likely(0), base, likely(5)])
    )
    assert state.process_logits(batch, torch.tensor([likely(5)])) is None

    # Phase 1: t_1 is fed, t_2 sampled.
    batch, fed = prepare(state, {"a": step.next()}, [1])
    assert fed == [5]
    batch = state.process_hidden_states(batch, torch.tensor([likely(7)]))
    assert state.process_logits(batch, torch.tensor([likely(7)])) is None

    # Phase 2: t_2 and END are fed; the hidden state of END becomes the mixed one.
    batch, fed = prepare(state, {"a": step.next(2)}, [2])
    assert fed == [7, END]
    thought = likely(2)
    hidden_NH = torch.tensor([likely(0), thought])
    batch = state.process_hidden_states(batch, hidden_NH)
    mixed = 0.75 * torch.tensor(base) + 0.25 * torch.tensor(thought)
    torch.testing.assert_close(hidden_NH[1], mixed)
    assert hidden_NH[0].tolist() == likely(0)
    assert len(state.slots) == 1
    unsampled = state.process_logits(batch, hidden_NH[1:])
    assert len(state.slots) == 0

    # vLLM samples token 2, which the base holds for unlikely.
    assert unsampled is not None
    state.process_samples(unsampled, torch.tensor([2]))
    assert state.log.take("key") == {
        "a": [
            {
                "index": 6,
                "expected_gain": 1.0,
                "token_ids": [5, 7],
                "mixing_weight": WEIGHT,
                "base_logprob": pytest.approx(float(torch.tensor(base).log_softmax(-1)[2])),
                "mixed_logprob": pytest.approx(float(mixed.log_softmax(-1)[2])),
            }
        ]
    }
    assert state.metrics.counts().weights_at_most[-1][1] == 1


def test_a_gate_decides_for_each_request(state: ThoughtState) -> None:
    for request_id, threshold in (("a", 3.0), ("b", 2.9), ("c", 0.0)):
        state.add_request(request_id, greedy("key", threshold=threshold))
    gate = ThoughtStep.first(2, 4, is_gated=True)

    # Gate passes of "a", a decode, and "b", behind a prompt: nothing is fed beside the text.
    batch, fed = prepare(state, {"a": gate, "b": gate, "c": ThoughtStep.first(2, 0)}, [1, 3, 2])
    assert fed == [0, 0, 0, 0, 0, START]
    hidden = [likely(token) for token in (3, 0, 0, 3, 1, 5)]
    batch = state.process_hidden_states(batch, torch.tensor(hidden))
    logits_NV = torch.tensor([likely(3), likely(3), likely(5)])
    batch = state.decide(batch, logits_NV)
    assert batch.beginning.tolist() == [1]
    unsampled = state.process_logits(batch, logits_NV)
    assert unsampled is not None
    state.process_samples(unsampled, torch.tensor([3, 3, 0]))
    logprob = pytest.approx(float(torch.tensor(likely(3)).log_softmax(-1)[3]))
    assert state.log.take("key") == {
        "a": [
            {
                "index": 4,
                "expected_gain": 3.0,
                "token_ids": [],
                "mixing_weight": None,
                "base_logprob": logprob,
                "mixed_logprob": logprob,
            }
        ]
    }
    assert len(state.slots) == 2

    # "b" thinks: START is fed in a pass of its own.
    _, fed = prepare(state, {"b": gate.next()}, [1, 1])
    assert fed == [0, START]
    counts = state.metrics.counts()
    assert (counts.skipped, counts.expected_gains_at_most[-1][1]) == (1, 2)
    assert counts.gain_errors_at_most[-1][1] == 0


def test_thoughts_in_different_phases_share_a_pass(state: ThoughtState) -> None:
    for request_id in "ab":
        state.add_request(request_id, greedy())
    a, b = ThoughtStep.first(1, 0), ThoughtStep.first(3, 0)
    batch, fed = prepare(state, {"a": a}, [2])
    batch = state.process_hidden_states(batch, torch.tensor([likely(1), likely(6)]))
    state.process_logits(batch, torch.tensor([likely(6)]))

    # "a" ends its thought, "b" begins one behind a prompt, and "c" does not think.
    batch, fed = prepare(state, {"a": a.next(), "b": b}, [2, 4, 1])
    assert fed == [6, END, 0, 0, 0, START, 0]
    hidden_NH = torch.tensor([likely(token) for token in (0, 2, 0, 0, 3, 4, 5)])
    batch = state.process_hidden_states(batch, hidden_NH)
    torch.testing.assert_close(
        hidden_NH[1], 0.75 * torch.tensor(likely(1)) + 0.25 * torch.tensor(likely(2))
    )
    assert hidden_NH[2:].tolist() == [likely(token) for token in (0, 0, 3, 4, 5)]
    logits = torch.stack([hidden_NH[1], hidden_NH[5], hidden_NH[6]])
    assert state.process_logits(batch, logits) is None  # no request asked to see its thoughts
    _, fed = prepare(state, {"b": b.next()}, [1, 1, 1])
    assert fed == [0, 4, 0]


def test_decode_only_passes_feed_what_they_sampled(state: ThoughtState) -> None:
    for request_id in "ab":
        state.add_request(request_id, greedy())
    steps = {"a": ThoughtStep.first(4, 0), "b": ThoughtStep.first(4, 0)}
    batch, _ = prepare(state, steps, [2, 2])
    hidden_NH = torch.tensor([likely(0), likely(1), likely(0), likely(2)])
    state.process_logits(state.process_hidden_states(batch, hidden_NH), hidden_NH[1::2])

    rows, positions = np.arange(2), np.full(2, 20)
    decoding = state.prepare_decode(["a", "b"], rows, [1, 1], positions)
    assert state.fed_tokens(decoding).tolist() == [1, 2]
    assert state.decode(decoding, torch.tensor([likely(3), likely(4)])).tolist() == [3, 4]
    state.advance(decoding)
    assert state.fed_tokens(decoding).tolist() == [3, 4]


def test_a_preempted_request_thinks_the_thought_again(state: ThoughtState) -> None:
    state.add_request("a", greedy())
    prepare(state, {"a": ThoughtStep.first(2, 0)}, [2])
    state.drop_thought("a")
    assert len(state.slots) == 0
    # Its parameters are not sent again.
    _, fed = prepare(state, {"a": ThoughtStep.first(2, 0)}, [2])
    assert fed == [0, START]
    state.remove_request("a")
    assert len(state.slots) == 0


def test_a_given_thought_is_fed_whatever_is_likely(state: ThoughtState) -> None:
    state.add_request("a", greedy(first_thought=(3, 4)))
    first = ThoughtStep.first(2, 0)
    for step, length, feeds in (
        (first, 2, [0, START]),
        (first.next(), 1, [3]),
        (first.next(2), 2, [4, END]),
        # The thought before the next token is sampled.
        (ThoughtStep.first(2, 1), 2, [0, START]),
        (ThoughtStep.first(2, 1).next(), 1, [7]),
    ):
        if step.phase == 1 and step.index == 0:
            # Preempted: what is recomputed is the same.
            state.drop_thought("a")
            check_pass(state, first, 2, [0, START])
        check_pass(state, step, length, feeds)


def check_pass(state: ThoughtState, step: ThoughtStep, length: int, feeds: list[int]) -> None:
    """A pass of request "a" alone, after which the model holds token 7 for likely."""
    batch, fed = prepare(state, {"a": step}, [length])
    assert fed == feeds
    hidden_NH = torch.tensor([likely(7)] * length)
    state.process_logits(state.process_hidden_states(batch, hidden_NH), hidden_NH[-1:])


def test_no_gate_decides_about_a_given_thought(state: ThoughtState) -> None:
    for request_id in "ab":
        state.add_request(request_id, greedy(threshold=1e9, first_thought=(3, 4)))
    steps = {name: ThoughtStep.first(2, index, is_gated=True) for index, name in enumerate("ab")}
    batch, _ = prepare(state, steps, [1, 1])
    hidden_NH = torch.tensor([likely(1), likely(1)])
    batch = state.decide(state.process_hidden_states(batch, hidden_NH), hidden_NH)
    assert batch.thinks_G.tolist() == [True, False]


def test_a_forced_token_is_the_only_one_to_sample(state: ThoughtState) -> None:
    state.add_request("a", greedy(forced_tokens=(3, 4)))
    step = ThoughtStep.first(1, 1)
    for each, lengths in ((step, [2]), (step.next(), [2])):
        batch, _ = prepare(state, {"a": each}, lengths)
        hidden_NH: Any = torch.tensor([likely(1), likely(1)])
        state.process_logits(state.process_hidden_states(batch, hidden_NH), hidden_NH[1:])
    allowed = state.forced_tokens.apply(torch.zeros(1, VOCAB_SIZE)).isfinite().nonzero()
    assert allowed.tolist() == [[0, 4]]
    # It holds for one sampling.
    assert state.forced_tokens.apply(torch.zeros(1, VOCAB_SIZE)).isfinite().all()
