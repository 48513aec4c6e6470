"""Everything that can be wrong with a server's answer to one request."""

import pytest

from loadtest.records import Failure, Record
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Fault
from loadtest.traffic.plan import Target
from loadtest.traffic.prompts import PromptPosition
from tests.support.loadtest.runs import prompts_file, run_one, small_plan

pytestmark = pytest.mark.usefixtures("reused_workers")

FAULTS = [
    (Fault.REFUSED, Failure.REFUSED, "429: too many requests"),
    (Fault.HTTP, Failure.HTTP, "500: it broke"),
    (Fault.DROPPED, Failure.CONNECTION, "disconnected"),
    (Fault.SILENT, Failure.TIMEOUT, "not finished 2 s after"),
    (Fault.TRUNCATED, Failure.TRUNCATED, ""),
    (Fault.UNMARKED, Failure.TRUNCATED, "end mark"),
    (Fault.UNFINISHED, Failure.TRUNCATED, "finish reason"),
    (Fault.ERROR, Failure.ERROR_IN_STREAM, "it broke"),
    (Fault.GARBLED, Failure.ERROR_IN_STREAM, "unreadable event"),
    (Fault.EMPTY, Failure.EMPTY, "no visible token"),
    (Fault.MISCOUNTED, Failure.MISCOUNTED, "5 visible tokens arrived, usage says 6"),
    (Fault.OVERTHOUGHT, Failure.OVER_BUDGET, "21 thought tokens, 20 were allowed"),
    (Fault.THOUGHTLESS, Failure.OVER_BUDGET, "no thought tokens, 20 were asked for"),
]


@pytest.fixture(scope="module")
def faulty(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """A cell in which every fault happens once, among requests without one; by prompt."""
    prompts = [f"fault:{fault} please" for fault in Fault]
    folder = tmp_path_factory.mktemp("faults")
    plan = small_plan(
        url,
        "closed:4",
        budgets="4",
        requests=len(prompts) + 1,
        prompts=prompts_file(folder, *prompts, "no fault"),
        target=Target(url, timeout=2.0),
    )
    prepared = prepare(plan)
    (cell,) = run_cells(prepared, NoWatcher())
    assert not cell.partial
    return {
        prepared.source.at(PromptPosition(plan.seed, 0, 0, record.index)).text: record
        for record in cell.records
    }


@pytest.mark.parametrize(("fault", "failure", "words"), FAULTS)
def test_every_fault_is_found(
    faulty: dict[str, Record], fault: Fault, failure: Failure, words: str
) -> None:
    record = faulty[f"fault:{fault} please"]
    assert record.failure is failure
    assert record.message is not None
    assert words in record.message
    assert record.finished is not None


def test_a_fault_does_not_affect_other_requests(faulty: dict[str, Record]) -> None:
    record = faulty["no fault"]
    assert record.failure is None
    assert (record.visible_tokens, record.thought_tokens) == (5, 20)


def test_the_list_has_every_fault_and_every_kind_of_failure() -> None:
    assert {fault for fault, _, _ in FAULTS} == set(Fault)
    # These occur where a cell ends before its answers have come only.
    ended = {Failure.UNSENT, Failure.CUT, Failure.UNDRAINED}
    assert {failure for _, failure, _ in FAULTS} == set(Failure) - ended


def test_chat_completions_are_measured_like_completions(url: str) -> None:
    cell = run_one(small_plan(url, budgets="2", target=Target(url, chat=True), requests=4))
    assert {(r.visible_tokens, r.thought_tokens, r.failure) for r in cell.records} == {
        (5, 10, None)
    }


def test_more_thought_tokens_than_the_limit_of_the_answer_are_a_failure(url: str) -> None:
    target = Target(url, extra_body={"thinking_token_budget": 7})
    cell = run_one(small_plan(url, budgets="2", target=target, requests=2))
    # The test server knows no such limit and reports ten thought tokens.
    assert {record.failure for record in cell.records} == {Failure.OVER_BUDGET}
