"""Against a stock vLLM server, and beside vLLM's own load tester.

`python -m pytest tests/invariants/server/test_load_tester_beside_vllm.py -s` prints the figures of
both.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine.shapes import write_base_model
from loadtest.cli import main
from loadtest.reporting.results import load_run
from loadtest.testserver import MODEL, Behaviour, running
from quietstar_infer.config import END_TOKEN, START_TOKEN, read_json
from tests.support.loadtest.runs import FIRST, GAP, SLACK
from tests.support.loadtest.vllm_bench import (
    Seen,
    Traffic,
    side_by_side,
    through_ours,
    through_vllm_bench,
    write_prompts,
)
from tests.support.servers import DEMO, RunningServer, running_stock_server

pytestmark = pytest.mark.slow

REQUESTS, TOKENS, USERS = 48, 12, 4


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Stock vLLM with the demonstration model's base model, and with a parser of reasoning: chats
    begin within it."""
    base_model = write_base_model(tmp_path_factory.mktemp("stock") / "base", DEMO)
    give_reasoning_tags(base_model)
    template = base_model / "chat.jinja"
    template.write_text("{% for said in messages %}{{ said.content }}{% endfor %}<think>")
    reasoning = ["--reasoning-parser", "deepseek_r1", "--chat-template", str(template)]
    with running_stock_server(base_model, "--served-model-name", "base", *reasoning) as running:
        yield running


def give_reasoning_tags(model: Path) -> None:
    """Turn the tokens around a thought into the tags of reasoning models, which are text."""
    config, tokenizer = model / "tokenizer_config.json", model / "tokenizer.json"
    config.write_text(json.dumps({**read_json(config), "extra_special_tokens": []}))
    content = read_json(tokenizer)
    for token in content["added_tokens"]:
        token["special"] &= token["content"] not in (START_TOKEN, END_TOKEN)
    text = json.dumps(content).replace(START_TOKEN, "<think>").replace(END_TOKEN, "</think>")
    tokenizer.write_text(text)


@pytest.fixture(scope="module")
def delayed_url() -> Iterator[str]:
    with running(Behaviour(first=FIRST, gap=GAP, max_thought_budget=None)) as url:
        yield url


@pytest.fixture(scope="module")
def traffic(
    stock: RunningServer, delayed_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Traffic]:
    """The same requests for a real server and for one whose delays are known."""
    prompts = write_prompts(tmp_path_factory.mktemp("prompts"), REQUESTS)
    return {
        "stock vLLM": Traffic(stock.url, "base", prompts, REQUESTS, USERS, TOKENS),
        "known delays": Traffic(delayed_url, MODEL, prompts, REQUESTS, USERS, TOKENS),
    }


@pytest.fixture(scope="module")
def theirs(
    traffic: dict[str, Traffic], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Seen]:
    """The figures of `vllm bench serve`, from one process: importing vLLM takes longest."""
    return through_vllm_bench(traffic, DEMO, tmp_path_factory.mktemp("bench"))


def test_stock_vllm_is_measured_without_budgets_and_a_warning_says_so(
    stock: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    arguments = ["--url", stock.url, "--budgets", "0,4", "--ignore-eos", "--warmup", "0"]
    extent = ["--requests", str(REQUESTS), "--output-tokens", str(TOKENS), "--out", str(folder)]
    assert main([*arguments, *extent]) == 0
    out = capsys.readouterr().out
    assert "has no thought budgets" in out
    assert "measured once without, instead of with 0, 4" in out
    (cell,) = load_run(folder).cells
    assert cell.budgets == {"none": 1.0}
    assert {(r.failure, r.visible_tokens, r.thought_tokens) for r in cell.records} == {
        (None, TOKENS, None)
    }
    (counter,) = (name for name in cell.server if name.startswith("vllm:generation_tokens_total"))
    before, after = cell.server[counter]
    assert after - before == REQUESTS * TOKENS
    assert cell.occupancy


def test_the_price_of_thinking_of_stock_vllm_is_one_command(
    stock: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget of so many tokens is used up, because the model never ends its reasoning by itself;
    then comes the token that ends it."""
    folder = tmp_path / "results"
    budgets = ["--budget-field", "thinking_token_budget=2,5,8", "--ignore-eos", "--warmup", "0"]
    extent = ["--requests", str(REQUESTS), "--output-tokens", str(TOKENS), "--out", str(folder)]
    assert main(["--url", f"{stock.url}/v1/chat/completions", *budgets, *extent]) == 0
    assert "A thought token costs" in capsys.readouterr().out
    cells = load_run(folder).cells
    assert [cell.budgets for cell in cells] == [{"2": 1}, {"5": 1}, {"8": 1}]
    for cell in cells:
        (budget,) = map(int, cell.budgets)
        for record in cell.records:
            assert record.failure is None
            assert record.reasoning_tokens + record.visible_tokens == TOKENS
            assert record.thought_tokens == record.reasoning_tokens
            # A busy server sends several tokens in one chunk. One with reasoning and visible text
            # is shared out by characters; an end tag counts as what its chunk shows.
            if record.token_times and record.reasoning_times[-1] < record.token_times[0]:
                assert record.reasoning_tokens in (budget, budget + 1)


def test_vllm_bench_serve_counts_the_same_on_a_real_server(
    traffic: dict[str, Traffic], theirs: dict[str, Seen]
) -> None:
    vllm, ours = theirs["stock vLLM"], through_ours(traffic["stock vLLM"])
    print("\n" + side_by_side("stock vLLM", vllm, ours))
    # Times are this machine's, at this moment; what can be counted must be equal.
    assert ours.completed == vllm.completed == REQUESTS
    assert ours.visible_tokens == vllm.visible_tokens == REQUESTS * TOKENS


def test_vllm_bench_serve_measures_the_same_where_delays_are_known(
    traffic: dict[str, Traffic], theirs: dict[str, Seen]
) -> None:
    vllm, ours = theirs["known delays"], through_ours(traffic["known delays"])
    print("\n" + side_by_side("known delays", vllm, ours))
    assert ours.completed == vllm.completed == REQUESTS
    assert ours.visible_tokens == vllm.visible_tokens == REQUESTS * TOKENS
    # Each request takes 0.1 + 11 × 0.02 s, or more on a busy machine: those that it delays least.
    assert ours.p10_ttft == pytest.approx(vllm.p10_ttft, abs=1000 * SLACK)
    assert ours.p10_tpot == pytest.approx(vllm.p10_tpot, abs=1000 * SLACK / 4)
    for seen in (vllm, ours):
        assert seen.median_ttft >= 1000 * FIRST
        assert seen.requests_per_s <= USERS / (FIRST + (TOKENS - 1) * GAP)
