"""`echo` with `logprobs` and a thought budget: every token of the prompt after a thought."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
from openai import OpenAI
from safetensors.torch import load_file

from quietstar_infer.reference import ReferenceDecoder, seeded_thought
from server.api.scoring import Segment, split
from tests.invariants.server.test_golden_over_http import thought_budget
from tests.support.servers import GOLDEN, RunningServer

pytestmark = pytest.mark.slow

CASE = GOLDEN / "engine_greedy_n4"
TOLERANCE = 1e-3
# Half of the server's batch is for scoring.
MAX_ROWS = 32
# Longer than a block of the KV cache (128 on the CPU) and than these rows; end-of-text is in it.
LONG = [2 + (7 * position) % 53 for position in range(200)]


def score(http: httpx.Client, prompt: Any, **fields: Any) -> dict[str, Any]:
    body = {
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "echo": True,
        "logprobs": 2,
        "thought_budget": 3,
        "thought_temperature": 0,
        "return_thoughts": True,
    }
    answer = http.post("/v1/completions", json=body | fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def reference() -> ReferenceDecoder:
    return ReferenceDecoder.from_checkpoint(CASE / "checkpoint")


@pytest.mark.parametrize("case", ["engine_greedy_n4", "engine_greedy_n8"])
def test_official_log_probabilities_at_every_position(
    server: RunningServer, n8_server: RunningServer, case: str
) -> None:
    """Of models whose heads are large enough for vLLM's attention on the CPU; the tests of forced
    tokens have all."""
    expected = load_file(GOLDEN / case / "expected.safetensors")
    prompts = json.loads((GOLDEN / case / "case.json").read_text())["prompts"]
    texts = [expected[f"p{number}.input_ids"][0].tolist() for number in range(len(prompts))]
    url = (server if case == CASE.name else n8_server).url
    with httpx.Client(base_url=url, timeout=120) as http:
        choices = score(http, texts, thought_budget=thought_budget(case))["choices"]
    for number, (text, choice) in enumerate(zip(texts, choices, strict=True)):
        logits_TV = expected[f"p{number}.logits"][0]
        thoughts_TB = expected[f"p{number}.thought_ids"][0][:, 1:-1]
        assert choice["prompt_thoughts"][0] is None
        for position, token in enumerate(text[1:]):
            # Nothing but the meta-tokens, which the official code does not mask, is as far down.
            logprob = masked_log_softmax(logits_TV[position])[token].item()
            actual = choice["logprobs"]["token_logprobs"][position + 1]
            assert actual == pytest.approx(logprob, abs=TOLERANCE)
            thought = choice["prompt_thoughts"][position + 1]
            assert thought["token_ids"] == thoughts_TB[position].tolist()


def masked_log_softmax(logits_V: torch.Tensor) -> torch.Tensor:
    """Log-probabilities without the meta-tokens, in the vocabulary of the recordings."""
    tokens = json.loads((CASE / "checkpoint" / "tokenizer.json").read_text())["added_tokens"]
    meta = [t["id"] for t in tokens if t["content"] in ("<|startthought|>", "<|endthought|>")]
    assert len(meta) == 2
    return logits_V.index_fill(0, torch.tensor(meta), -math.inf).log_softmax(-1)


def test_sampled_thoughts_equal_the_reference_across_blocks(
    http: httpx.Client, reference: ReferenceDecoder
) -> None:
    answer = score(http, LONG, thought_temperature=1.0, seed=5)
    (choice,) = answer["choices"]
    assert len(choice["prompt_thoughts"]) == len(LONG)
    for position in range(len(LONG) - 1):
        prediction = reference.predict(LONG[: position + 1], 3, seeded_thought(5, 1.0))
        logprobs_V = prediction.logits_V.log_softmax(-1)
        actual = choice["logprobs"]["token_logprobs"][position + 1]
        assert actual == pytest.approx(logprobs_V[LONG[position + 1]].item(), abs=TOLERANCE)
        thought = choice["prompt_thoughts"][position + 1]
        assert thought["token_ids"] == prediction.thought_ids
        assert thought["mixing_weight"] == pytest.approx(prediction.mixing_weight, abs=TOLERANCE)
        # The token itself is told, too.
        likeliest = sorted(choice["logprobs"]["top_logprobs"][position + 1].values())[-2:]
        expected = logprobs_V.topk(2).values.flip(0).tolist()
        assert likeliest == pytest.approx(expected, abs=TOLERANCE)
    assert answer["quiet_star"]["prompt_thought_tokens"] == 3 * (len(LONG) - 1)
    assert answer["usage"]["thought_tokens"] == 3


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_at_budget_0_a_prompt_is_scored_by_the_base_model(
    http: httpx.Client, reference: ReferenceDecoder, max_tokens: int
) -> None:
    """By vLLM itself: test_server_equals_stock.py compares them with those of stock vLLM."""
    (choice,) = score(http, LONG, thought_budget=0, max_tokens=max_tokens)["choices"]
    for position in range(len(LONG) - 1):
        logprobs_V = reference.predict_plainly(LONG[: position + 1]).log_softmax(-1)
        actual = choice["logprobs"]["token_logprobs"][position + 1]
        assert actual == pytest.approx(logprobs_V[LONG[position + 1]].item(), abs=TOLERANCE)
    assert len(choice["logprobs"]["tokens"]) == len(LONG) + max_tokens


def test_the_completion_is_the_same_as_without_echo(http: httpx.Client) -> None:
    prompt = LONG[:20]
    plain = score(http, prompt, max_tokens=6, echo=False)["choices"][0]
    echoed = score(http, prompt, max_tokens=6)["choices"][0]
    assert echoed["text"].endswith(plain["text"])
    assert [thought["token_ids"] for thought in echoed["thoughts"]] == [
        thought["token_ids"] for thought in plain["thoughts"]
    ]
    assert echoed["logprobs"]["token_logprobs"][20:] == pytest.approx(
        plain["logprobs"]["token_logprobs"], abs=TOLERANCE
    )
    assert "prompt_thoughts" not in plain


def thoughts_of(choice: dict[str, Any]) -> list[list[int] | None]:
    """The thought before each token of the prompt."""
    return [thought and thought["token_ids"] for thought in choice["prompt_thoughts"]]


def test_max_tokens_0_returns_the_prompt_alone(http: httpx.Client) -> None:
    one = score(http, LONG[:20])["choices"][0]
    none = score(http, LONG[:20], max_tokens=0)["choices"][0]
    assert len(none["logprobs"]["tokens"]) == 20
    assert none["logprobs"]["token_logprobs"][1:] == pytest.approx(
        one["logprobs"]["token_logprobs"][1:20], abs=TOLERANCE
    )
    assert thoughts_of(none) == thoughts_of(one)


def test_streams_equal_whole_responses(openai: OpenAI) -> None:
    body: dict[str, Any] = {
        "model": "golden",
        "prompt": LONG[:30],
        "max_tokens": 4,
        "temperature": 1,
        "echo": True,
        "logprobs": 1,
        "n": 2,
        "seed": 3,
        "extra_body": {"thought_budget": 2, "return_thoughts": True, "ignore_eos": True},
    }
    whole = openai.completions.create(**body)
    chunks = list(openai.completions.create(**body, stream=True))
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        logprobs = [value for c in mine if c.logprobs for value in c.logprobs.token_logprobs or ()]
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert len(logprobs) == 34
        assert logprobs[1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=TOLERANCE)
        (with_thoughts,) = [c for c in map(dict, mine) if "prompt_thoughts" in c]
        assert thoughts_of(with_thoughts) == thoughts_of(dict(choice))


def test_prompt_logprobs_of_vllm_think_too(http: httpx.Client) -> None:
    (choice,) = score(http, LONG[:9], echo=False, logprobs=None, prompt_logprobs=0)["choices"]
    echoed = score(http, LONG[:9])["choices"][0]["logprobs"]["token_logprobs"]
    for position in range(1, 9):
        entry = choice["prompt_logprobs"][position][str(LONG[position])]
        assert entry["logprob"] == pytest.approx(echoed[position], abs=TOLERANCE)


def test_a_budget_for_the_whole_request_is_refused(http: httpx.Client) -> None:
    body = {"prompt": LONG, "echo": True, "logprobs": 1, "thinking_token_budget": 5}
    answer = http.post("/v1/completions", json=body | {"thought_budget": 2})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "thinking_token_budget"


@pytest.mark.parametrize("num_tokens", [MAX_ROWS, len(LONG)])
def test_a_scored_token_costs_what_a_visible_one_costs(http: httpx.Client, num_tokens: int) -> None:
    """b + 1 passes of one sequence; and the text is prefilled once, in chunks."""
    budget = 4
    # A draft that was right has saved a pass.
    names = ("quietstar:engine_rows_total", "quietstar:thought_drafts_accepted_total")
    before = sum(total(http, name) for name in names)
    score(http, LONG[:num_tokens], thought_budget=budget)
    rows = sum(total(http, name) for name in names) - before
    assert num_tokens * (budget + 1) <= rows <= num_tokens * (budget + 1) * 1.1


def test_a_long_text_takes_a_bounded_number_of_rows(http: httpx.Client) -> None:
    with ThreadPoolExecutor() as pool:
        scoring = pool.submit(score, http, LONG * 4, thought_budget=4)
        most = 0.0
        while not scoring.done():
            most = max(most, running(http))
        assert len(scoring.result()["choices"][0]["prompt_thoughts"]) == 800
    # And the completion itself.
    assert 0 < most <= MAX_ROWS + 1


def test_other_requests_are_served_while_a_long_text_is_scored(http: httpx.Client) -> None:
    """Scoring leaves a part of the batch free: later requests need not wait for its end."""
    with ThreadPoolExecutor() as pool:
        scoring = pool.submit(score, http, LONG * 2, thought_budget=8)
        while not scoring.done() and running(http) < 2:
            pass  # until it has taken its rows
        other = score(http, LONG[:5], echo=False, logprobs=None, max_tokens=2)
        assert not scoring.done()
        assert len(other["choices"][0]["thoughts"]) == 2
        assert len(scoring.result()["choices"][0]["prompt_thoughts"]) == 400


def running(http: httpx.Client) -> float:
    return total(http, "vllm:num_requests_running")


def total(http: httpx.Client, metric: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric}{{"))


@pytest.mark.parametrize(
    ("num_tokens", "max_rows", "length"),
    [(2, 4, 1), (5, 4, 1), (6, 4, 2), (9, 4, 2), (10, 4, 4), (100, 4, 16), (1000, 4, 16)],
)
def test_segments_are_as_short_as_the_rows_allow(
    num_tokens: int, max_rows: int, length: int
) -> None:
    segments = split(num_tokens, max_rows, block_size=16)
    assert [token for segment in segments for token in range(*segment)] == [*range(1, num_tokens)]
    assert {segment.num_tokens for segment in segments[:-1]} <= {length}
    assert 0 < segments[-1].num_tokens <= length


def test_a_single_token_has_no_segments() -> None:
    assert split(1, 4, 16) == []
    assert split(2, 4, 16) == [Segment(1, 2)]
