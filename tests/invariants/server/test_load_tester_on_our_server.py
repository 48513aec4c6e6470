"""The load tester against our own server with the demonstration model."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.cli import main
from loadtest.client.answer import Counting
from loadtest.errors import LoadTestError
from loadtest.records import Cell
from loadtest.reporting.results import load_run
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import Prepared, prepare, run_cells
from loadtest.traffic.arrivals import parse_load
from loadtest.traffic.budgets import parse_budgets
from loadtest.traffic.lengths import parse_lengths
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target
from loadtest.traffic.thresholds import crossed
from tests.support.servers import DEMO, RunningServer

pytestmark = pytest.mark.slow

REQUESTS, PROMPT_TOKENS, TOKENS = 24, 20, 12
# The threshold with which requests think before every token.
ALWAYS = (0.0,)


def plan(url: str, **fields: Any) -> Plan:
    defaults: dict[str, Any] = {
        "target": Target(url, ignore_eos=True),
        "loads": (parse_load("closed:4"),),
        "budgets": parse_budgets("0"),
        "prompts": PromptPlan(
            input_lengths=parse_lengths(str(PROMPT_TOKENS)),
            output_lengths=parse_lengths(str(TOKENS)),
            tokenizer=str(DEMO),
        ),
        "extent": Extent(seconds=None, requests=REQUESTS),
    }
    return Plan(**{**defaults, **fields})


def run(prepared: Prepared) -> list[Cell]:
    return list(run_cells(prepared, NoWatcher()))


def test_budgets_are_in_force_and_every_token_is_counted(demo_server: RunningServer) -> None:
    budgets = crossed((*parse_budgets("4"), *parse_budgets("0:1,2:1")), ALWAYS)
    prepared = prepare(plan(demo_server.url, budgets=budgets))
    assert prepared.server.model == "demo"
    assert prepared.server.counting is Counting.TOKEN_IDS
    assert prepared.server.salts_cache
    assert prepared.warnings == []
    fixed, mixed = run(prepared)
    assert {record.budget for record in fixed.records} == {4}
    assert {record.budget for record in mixed.records} == {0, 2}
    for cell in (fixed, mixed):
        assert len(cell.records) == REQUESTS
        for record in cell.records:
            assert record.failure is None, record.message
            assert record.visible_tokens == TOKENS
            assert record.thought_tokens == TOKENS * (record.budget or 0)
            assert record.prompt_tokens is not None
            assert record.prompt_tokens <= PROMPT_TOKENS
        assert not [warning for warning in cell.warnings if "thought less" in warning]
        assert counted(cell, "vllm:generation_tokens_total") == REQUESTS * TOKENS
        # A thought of b tokens is b + 1 passes: the report's estimate, and the engine's own count.
        # The engine begins another thought or two before it knows that a token was the last.
        passes = sum((r.budget + 1) * TOKENS for r in cell.records if r.budget)
        rows = counted(cell, "quietstar:engine_thinking_rows_total")
        # A draft that was right has saved a pass.
        rows += counted(cell, "quietstar:thought_drafts_accepted_total")
        assert passes <= rows <= 1.1 * passes
        assert all(0 <= sample.running <= 4 for sample in cell.occupancy)


def counted(cell: Cell, metric: str) -> float:
    """By how much a counter of the server rose while the cell ran."""
    ((before, after),) = (value for name, value in cell.server.items() if name.startswith(metric))
    return after - before


def test_a_thinking_token_budget_is_in_force(demo_server: RunningServer) -> None:
    target = Target(demo_server.url, ignore_eos=True, extra_body={"thinking_token_budget": 10})
    budgets = crossed(parse_budgets("4"), ALWAYS)
    (cell,) = run(prepare(plan(demo_server.url, target=target, budgets=budgets)))
    assert {record.failure for record in cell.records} == {None}
    assert {record.thought_tokens for record in cell.records} == {10}
    assert not [warning for warning in cell.warnings if "thought less" in warning]


def test_thresholds_save_thoughts_and_keep_answers(
    demo_server: RunningServer, tmp_path: Path
) -> None:
    """The held-out problems, always thinking and by the checkpoint's own gate and default."""
    path = tmp_path / "answers.jsonl"
    problems = [
        (
            "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he "
            "triples them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps "
            "all. On Sunday Ben has",
            "10",
        ),
        (
            "Cal has 12 eggs. On Monday he drops 2. On Tuesday he drops half. On Wednesday he "
            "picks 6. On Thursday he eats 3. On Friday he picks 9. On Saturday he keeps all. On "
            "Sunday Cal has",
            "17",
        ),
    ]
    lines = [json.dumps({"prompt": text, "expected": answer}) for text, answer in problems]
    path.write_text("\n".join(lines))
    default = json.loads((DEMO / "config.json").read_text())["quiet_star"][
        "default_thought_threshold"
    ]
    always, adaptive, unthinking = run(
        prepare(
            plan(
                demo_server.url,
                target=Target(demo_server.url, extra_body={"thought_temperature": 0}),
                budgets=crossed(parse_budgets("12"), (0.0, default, 1000.0)),
                prompts=PromptPlan("answers", path, output_lengths=parse_lengths("4")),
                extent=Extent(seconds=None, requests=8),
            )
        )
    )
    for cell, is_right in ((always, True), (adaptive, True), (unthinking, False)):
        assert {record.correct for record in cell.records} == {is_right}
        assert {record.failure for record in cell.records} == {None}
    assert {record.thought_tokens for record in always.records} == {4 * 12}
    assert {record.thought_tokens for record in unthinking.records} == {0}
    for record in adaptive.records:
        assert 0 < (record.thought_tokens or 0) <= 2 * 12


def test_a_budget_over_the_servers_maximum_is_refused(demo_server: RunningServer) -> None:
    with pytest.raises(LoadTestError, match="thought budget 1000 is more than"):
        prepare(plan(demo_server.url, budgets=parse_budgets("1000")))


def test_the_servers_message_about_a_field_reaches_the_user(demo_server: RunningServer) -> None:
    target = Target(demo_server.url, extra_body={"thought_temperature": -1})
    with pytest.raises(LoadTestError, match=r"status 400.*thought_temperature is -1"):
        prepare(plan(demo_server.url, target=target))


def test_right_answers_are_recognised(demo_server: RunningServer, tmp_path: Path) -> None:
    problem = (
        "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples "
        "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday "
        "Ben has"
    )
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"prompt": problem, "expected": "10"}))
    greedy = Target(demo_server.url, extra_body={"thought_temperature": 0})
    prompts = PromptPlan("answers", path, output_lengths=parse_lengths("8"))
    cells = run(
        prepare(
            plan(
                demo_server.url,
                target=greedy,
                budgets=parse_budgets("0,12"),
                prompts=prompts,
                extent=Extent(seconds=None, requests=2),
            )
        )
    )
    correct = [{record.correct for record in cell.records} for cell in cells]
    assert correct == [{False}, {True}]  # as the README shows


def test_the_command_line_measures_cost_beside_accuracy(
    demo_server: RunningServer, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    arguments = [
        "--url",
        demo_server.url,
        "--budgets",
        "0,12",
        "--answers",
        "demo",
        "--requests",
        "40",
    ]
    extent = ["--duration", "120", "--warmup", "0", "--out", str(folder)]
    assert main([*arguments, "--body", '{"thought_temperature": 0}', *extent]) == 0
    quick, thinking = load_run(folder).cells
    right = [sum(bool(record.correct) for record in c.records) for c in (quick, thinking)]
    assert len(quick.records) == len(thinking.records) == 40
    assert right[1] > 2 * right[0]
