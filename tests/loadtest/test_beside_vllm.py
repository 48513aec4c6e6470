"""Against a stock vLLM server, and beside vLLM's own load tester.

`python -m pytest tests/loadtest/test_beside_vllm.py -s` prints the figures of both.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from loadtest.cli import main
from loadtest.reporting.results import load_run
from loadtest.testserver import MODEL, Behaviour, running
from quietstar_infer.checkpoint import load_tensors, thought_tensor_shapes
from tests.loadtest.bench import (
    Traffic,
    side_by_side,
    through_ours,
    through_vllm_bench,
    write_prompts,
)
from tests.support.servers import DEMO, RunningServer, running_stock_server

REQUESTS, TOKENS, USERS = 48, 12, 4
FIRST, GAP = 0.1, 0.02
SLACK = 0.05
"""Of a machine that is not out of its mind, as in test_sending.py."""


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model without what makes it think."""
    folder = tmp_path_factory.mktemp("trunk")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder)
    hidden_size = json.loads((DEMO / "config.json").read_text())["hidden_size"]
    thoughts = thought_tensor_shapes(hidden_size)
    tensors = {name: t for name, t in load_tensors(DEMO).items() if name not in thoughts}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def stock(trunk: Path) -> Iterator[RunningServer]:
    with running_stock_server(trunk, "--served-model-name", "trunk") as running:
        yield running


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


def test_vllm_bench_serve_sees_the_same_on_a_real_server(
    stock: RunningServer, trunk: Path, tmp_path: Path
) -> None:
    traffic = Traffic(
        stock.url, "trunk", write_prompts(tmp_path, REQUESTS), REQUESTS, USERS, TOKENS
    )
    theirs, ours = through_vllm_bench(traffic, trunk, tmp_path), through_ours(traffic)
    print("\n" + side_by_side("stock vLLM", theirs, ours))
    # Times are this machine's, at this moment; what can be counted must be equal.
    assert ours.completed == theirs.completed == REQUESTS
    assert ours.visible_tokens == theirs.visible_tokens == REQUESTS * TOKENS


def test_vllm_bench_serve_sees_the_same_where_delays_are_known(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, REQUESTS)
    with running(Behaviour(first=FIRST, gap=GAP, max_thought_budget=None)) as url:
        traffic = Traffic(url, MODEL, prompts, REQUESTS, USERS, TOKENS)
        theirs, ours = through_vllm_bench(traffic, DEMO, tmp_path), through_ours(traffic)
    print("\n" + side_by_side("known delays", theirs, ours))
    assert ours.completed == theirs.completed == REQUESTS
    assert ours.visible_tokens == theirs.visible_tokens == REQUESTS * TOKENS
    assert ours.median_ttft == pytest.approx(theirs.median_ttft, abs=1000 * SLACK)
    assert ours.median_tpot == pytest.approx(theirs.median_tpot, abs=1000 * SLACK / 4)
    # Each request takes 0.1 + 11 × 0.02 s, or more on a busy machine.
    for seen in (theirs, ours):
        assert seen.median_ttft >= 1000 * FIRST
        assert seen.requests_per_s <= USERS / (FIRST + (TOKENS - 1) * GAP)
