"""Servers that reason before they answer, whatever they call it and however they count it."""

import itertools
import json
from pathlib import Path

import pytest

from loadtest.analysis.figures import figures
from loadtest.analysis.summary import summarise
from loadtest.cli import main
from loadtest.client.answer import Counting
from loadtest.records import Cell, Failure
from loadtest.reporting.report import render
from loadtest.reporting.results import load_run
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, Reasoning, running
from loadtest.traffic.plan import Target
from tests.support.loadtest.records import made_run
from tests.support.loadtest.runs import FIRST, GAP, SLACK, run_one, small_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reused_workers")]

REASONED, VISIBLE = 6, 4
WAYS = [
    (field, chat)
    for field, chat in itertools.product(
        ("reasoning_content", "reasoning", "thinking", "tags"), (False, True)
    )
]


def cell_of(reasoning: Reasoning, chat: bool = True, counts: bool = True, chunk: int = 1) -> Cell:
    behaviour = Behaviour(
        first=FIRST,
        gap=GAP,
        max_thought_budget=None,
        reasoning=reasoning,
        counts=counts,
        tokens_per_chunk=chunk,
    )
    with running(behaviour) as url:
        target, tokens = Target(url, chat=chat), str(REASONED + VISIBLE)
        return run_one(
            small_plan(url, "closed:2", "none", requests=6, tokens=tokens, target=target)
        )


@pytest.mark.parametrize(("field", "chat"), WAYS)
def test_times_and_tokens_of_both_channels_are_measured(field: str, chat: bool) -> None:
    cell = cell_of(Reasoning(REASONED, field), chat)
    assert {(r.reasoning_tokens, r.thought_tokens, r.visible_tokens) for r in cell.records} == {
        (REASONED, REASONED, VISIBLE)
    }
    assert {record.failure for record in cell.records} == {None}
    least = min(cell.records, key=lambda record: record.time_to_first_token or 0.0)
    assert FIRST <= (least.time_to_first_reasoning_token or 0.0) < FIRST + SLACK
    assert (least.time_to_first_token or 0.0) >= FIRST + REASONED * GAP
    assert (least.time_to_first_token or 0.0) < FIRST + REASONED * GAP + SLACK
    for record in cell.records:
        # The server sends nothing early: of a request whose first token came late, the others come
        # the sooner after it.
        first = record.time_to_first_reasoning_token or 0.0
        assert first + (record.thinking_time or 0.0) >= FIRST + REASONED * GAP
        per_token = record.time_per_reasoning_token or 0.0
        assert first + (REASONED - 1) * per_token >= FIRST + (REASONED - 1) * GAP - 1e-9
    found = figures(cell).latencies
    for name, true in (
        ("thinking_time", REASONED * GAP),
        ("time_per_reasoning_token", GAP),
        ("time_per_visible_token", GAP),
    ):
        assert found[name].least < true + SLACK


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("counts", [True, False])
def test_usage_may_count_reasoning_inside_or_apart_or_not_at_all(
    inside: bool, reported: bool, counts: bool
) -> None:
    """Without counts in the chunks each brings two tokens, which only the usage says."""
    cell = cell_of(
        Reasoning(REASONED, inside=inside, reported=reported), counts=counts, chunk=1 + (not counts)
    )
    assert {record.failure for record in cell.records} == {None}
    (seen,) = {(r.reasoning_tokens, r.thought_tokens, r.visible_tokens) for r in cell.records}
    if counts or reported:
        assert seen == (REASONED, REASONED, VISIBLE)
    elif inside:  # in proportion to the characters: " hm" is shorter than " word"
        assert (seen[1] or 0) + seen[2] == REASONED + VISIBLE
    else:  # there are more chunks than tokens in the usage, so that it counts visible ones only
        assert seen == (REASONED / 2, REASONED / 2, VISIBLE)
    found = figures(cell)
    assert found.thought_tokens_per_answer == seen[1]
    assert found.visible_tokens_per_answer == seen[2]


def test_hidden_reasoning_is_known_by_the_usage() -> None:
    cell = cell_of(Reasoning(REASONED, "hidden"))
    assert {
        (r.failure, r.reasoning_tokens, r.thought_tokens, r.visible_tokens) for r in cell.records
    } == {(None, 0, REASONED, VISIBLE)}


@pytest.mark.parametrize("field", ["reasoning_content", "tags", "hidden"])
def test_an_answer_cut_inside_its_reasoning_is_no_failure(field: str) -> None:
    cell = cell_of(Reasoning(100, field))
    assert {(r.failure, r.visible_tokens, r.thought_tokens) for r in cell.records} == {
        (None, 0, REASONED + VISIBLE)
    }
    assert "6 of 6 answers reached their length while they still reasoned" in cell.warnings[0]
    found = figures(cell)
    assert found.cut_thinking_share == 1
    assert "time_to_first_token" not in found.latencies
    summary = summarise(made_run([cell], levels=["p95 time_to_first_token<=600s"]))
    (row,) = summary.rows
    assert row.repeats[0].goodput == 0  # nobody saw a token
    assert "cut while thinking" in render(summary)


def test_an_answer_that_ends_without_a_visible_token_is_empty() -> None:
    cell = cell_of(Reasoning(3, answer=0))
    assert {(r.failure, r.message) for r in cell.records} == {
        (Failure.EMPTY, "no visible token after 3 reasoning tokens")
    }


def test_tokens_are_counted_by_their_ids_where_reasoning_is_streamed() -> None:
    with running(Behaviour(max_thought_budget=None, reasoning=Reasoning(2))) as url:
        prepared = prepare(small_plan(url, budgets="none", target=Target(url, chat=True)))
        assert prepared.server.counting is Counting.TOKEN_IDS
        assert [len(cell.records) for cell in run_cells(prepared, NoWatcher())] == [10]


TRUTH = Behaviour(first=0.02, gap=0.004, max_thought_budget=None, reasoning=Reasoning(64, answer=8))
"""An answer with r reasoning tokens takes 20 + 4 (r + 7) ms."""


@pytest.mark.parametrize(
    ("field", "values", "tokens"),
    [
        ("reasoning_effort", ("low", "medium", "high"), (4, 16, 64)),
        ("thinking_token_budget", ("0", "16", "64"), (0, 16, 64)),
    ],
)
def test_the_price_of_thinking_of_another_server_is_one_command(
    field: str,
    values: tuple[str, ...],
    tokens: tuple[int, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers, folder = tmp_path / "answers.jsonl", tmp_path / "results"
    lines = [
        {"prompt": f"needs:{needed} words", "expected": " ".join(["word"] * 8), "max_tokens": 100}
        for needed in (0, tokens[1], tokens[2])
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with running(TRUTH) as url:
        arguments = ["--url", f"{url}/v1/chat/completions", "--answers", str(answers)]
        arguments += ["--budget-field", f"{field}={','.join(values)}", "--requests", "48"]
        assert main([*arguments, "--warmup", "0", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    (load,) = summarise(load_run(folder)).loads
    assert [row.budget for row in load.rows] == list(values)
    thoughts = [row.figure("thought_tokens_per_answer") for row in load.rows]
    assert [found.mean for found in thoughts if found] == list(tokens)
    assert [row.accuracy.hits for row in load.rows if row.accuracy] == [16, 32, 48]
    assert load.price is not None
    assert load.price.thoughts == tokens
    assert load.price.slope == pytest.approx(0.004, rel=0.25)
    assert load.price.relative == pytest.approx(1, rel=0.25)
    for front in load.fronts:
        assert front.recommended.setting.label == f"{field} = {values[-1]}"
    sentence = f"thinking takes right answers from 33.3% ({field} = {values[0]}) to 100.0%"
    assert sentence in out
    take = f"take {field} = {values[-1]}: 100.0% right for {tokens[-1] + 8} tokens per answer"
    html = (folder / "report.html").read_text()
    for text in (sentence, take):
        assert text in html
    # The answer comes first.
    assert html.index(sentence) < html.index("<table")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget-field", "effort"], "is not like reasoning_effort=low,medium,high"),
        (["--budget-field", "effort=low,"], "is not like reasoning_effort=low,medium,high"),
        (["--budget-field", "effort=low,low"], "a value is there twice"),
        (["--budget-field", "max_tokens=1,2"], "there is --output-tokens"),
        (["--budget-field", "thought_budget=1,2"], "there is --budgets"),
        (["--budget-field", "effort=low", "--budgets", "0"], "takes the place of --budgets"),
    ],
)
def test_mistakes_in_a_budget_field_are_explained(
    url: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", url, *arguments]) == 2
    assert message in capsys.readouterr().err
