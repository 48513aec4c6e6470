"""What can go wrong, with a request, with a server, and with a load test."""

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from loadtest.analysis.summary import summarise
from loadtest.client.answer import Counting
from loadtest.errors import LoadTestError
from loadtest.records import Failure, Record
from loadtest.reporting.report import render
from loadtest.sending.progress import Silence, Snapshot
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, Fault, running
from loadtest.traffic.plan import Extent, Target
from loadtest.traffic.prompts import Place
from tests.loadtest.made import made_run
from tests.loadtest.sending import prompts_file, run_one, small_plan
from tests.support.servers import free_port


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as url:
        yield url


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
    (cell,) = run_cells(prepared, Silence())
    assert not cell.partial
    return {
        prepared.source.at(Place(plan.seed, 0, 0, record.index)).text: record
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


def test_a_fault_is_its_own_requests_affair(faulty: dict[str, Record]) -> None:
    record = faulty["no fault"]
    assert record.failure is None
    assert (record.visible_tokens, record.thought_tokens) == (5, 20)


def test_every_fault_and_every_failure_is_in_the_list() -> None:
    assert {fault for fault, _, _ in FAULTS} == set(Fault)
    # Those two are of cells that are cut short.
    assert {failure for _, failure, _ in FAULTS} == set(Failure) - {Failure.UNSENT, Failure.CUT}


def test_no_server_is_explained() -> None:
    with pytest.raises(LoadTestError, match="no server answers at"):
        prepare(small_plan(f"http://127.0.0.1:{free_port()}"))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", ""])
def test_what_is_no_url_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="no URL"):
        prepare(small_plan(url))


def test_the_address_of_something_else_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="OpenAI-compatible"):
        prepare(small_plan(f"{url}/elsewhere"))
    assert prepare(small_plan(f"{url}/v1/")).server.url == url


def test_an_unknown_model_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="does not serve the model gpt, but test"):
        prepare(small_plan(url, target=Target(url, model="gpt")))


def test_a_budget_over_the_maximum_is_refused_before_the_run(url: str) -> None:
    with pytest.raises(LoadTestError, match=r"budget 17 .* allows, 16.*--max-thought-budget 17"):
        prepare(small_plan(url, budgets="0,17"))


def test_a_field_that_is_ours_is_refused(url: str) -> None:
    with pytest.raises(LoadTestError, match=r"thought_budget cannot be set.*--budgets"):
        prepare(small_plan(url, target=Target(url, extra_body={"thought_budget": 3})))


def test_a_stock_server_gets_no_budgets_and_one_cell() -> None:
    with running(Behaviour(max_thought_budget=None)) as url:
        prepared = prepare(small_plan(url, budgets="0,4", requests=4))
        (cell,) = run_cells(prepared, Silence())
    assert "has no thought budgets" in prepared.warnings[0]
    assert cell.budgets == {"none": 1.0}
    assert {(record.budget, record.failure) for record in cell.records} == {(None, None)}


def test_a_server_that_does_not_count_is_reported_and_measured_by_chunks() -> None:
    with running(Behaviour(counts=False, tokens_per_chunk=2)) as url:
        prepared = prepare(small_plan(url, requests=4))
        assert prepared.server.counting is Counting.CHUNKS
        (cell,) = run_cells(prepared, Silence())
    assert "gaps between chunks" in prepared.warnings[0]
    assert {(record.visible_tokens, record.failure) for record in cell.records} == {(5, None)}


def test_an_api_key_is_sent_and_asked_for() -> None:
    with running(Behaviour(api_key="secret")) as url:
        with pytest.raises(LoadTestError, match="API key"):
            prepare(small_plan(url))
        cell = run_one(small_plan(url, target=Target(url, api_key="secret"), requests=2))
    assert not any(record.failure for record in cell.records)


def test_chat_completions_are_measured_alike(url: str) -> None:
    cell = run_one(small_plan(url, budgets="2", target=Target(url, chat=True), requests=4))
    assert {(r.visible_tokens, r.thought_tokens, r.failure) for r in cell.records} == {
        (5, 10, None)
    }


def test_a_thought_limit_for_the_whole_answer_is_allowed_for(url: str) -> None:
    target = Target(url, extra_body={"thinking_token_budget": 7})
    cell = run_one(small_plan(url, budgets="2", target=target, requests=2))
    # The test server knows no such limit, and thinks ten tokens: that is noticed.
    assert {record.failure for record in cell.records} == {Failure.OVER_BUDGET}


@pytest.mark.parametrize("load", ["closed:2", "constant:100"])
def test_a_server_that_dies_ends_the_run(load: str) -> None:
    with running(Behaviour(gap=0.01, die_after=20)) as url:
        plan = small_plan(url, [load, "closed:1"], requests=None, seconds=60.0, workers=2)
        cells = list(run_cells(prepare(plan), Silence()))
    (cell,) = cells  # the second one was not begun
    assert cell.partial
    assert "the server cannot be reached any more" in cell.warnings[0]
    assert cell.window[1] < 60
    failures = [record.failure for record in cell.records]
    assert Failure.CONNECTION in failures
    assert failures.count(None) >= 5


class InterruptAfter(Silence):
    """Presses Ctrl-C when a cell has come so far."""

    def __init__(self, finished: int) -> None:
        self._finished = finished
        self._pressed = False

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.finished >= self._finished and not self._pressed:
            self._pressed = True
            self.press()

    def press(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_what_there_is() -> None:
    with running(Behaviour(first=0.5)) as url:
        plan = small_plan(
            url, ["constant:20", "closed:1"], requests=None, seconds=60.0, max_in_flight=8
        )
        cells = list(run_cells(prepare(plan), InterruptAfter(3)))
    (cell,) = cells
    assert cell.partial
    assert "Ctrl-C" in cell.warnings[0]
    assert 0.5 < cell.window[1] < 60
    failures = [record.failure for record in cell.records]
    assert failures.count(None) >= 3
    assert failures.count(Failure.CUT) == 8
    assert Failure.UNSENT in failures  # twice as many are due as the client may have in flight
    indices = [record.index for record in cell.records]
    assert sorted(indices) == list(range(len(indices)))


def test_ctrl_c_while_a_cell_warms_up_leaves_a_report() -> None:
    with running(Behaviour(first=0.01)) as url:
        plan = small_plan(url, "closed:2", extent=Extent(seconds=60.0, warmup=60.0))
        (cell,) = run_cells(prepare(plan), InterruptAfter(3))
    assert cell.partial
    assert cell.window == (60, 60)
    assert all(record.warmup for record in cell.records)
    page = render(summarise(made_run([cell])))
    assert "nothing was measured" in page
    assert "interrupted with Ctrl-C" in page


def test_ctrl_c_reaches_no_worker() -> None:
    class ToAll(InterruptAfter):
        def press(self) -> None:
            # As a terminal does.
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGINT)
            super().press()

    with running(Behaviour(first=0.05)) as url:
        plan = small_plan(url, "closed:2", requests=None, seconds=60.0, workers=2)
        (cell,) = run_cells(prepare(plan), ToAll(0))
    assert "Ctrl-C" in cell.warnings[0]
    assert cell.client is not None
    assert cell.client.workers == 2


def test_a_worker_that_dies_ends_the_run_and_keeps_what_the_others_have() -> None:
    class Killer(InterruptAfter):
        def press(self) -> None:
            # The youngest process is a worker, the oldest is the test server.
            max(multiprocessing.active_children(), key=lambda child: child.pid or 0).kill()

    with running(Behaviour(first=0.05)) as url:
        plan = small_plan(url, "constant:40", requests=None, seconds=60.0, workers=2)
        (cell,) = run_cells(prepare(plan), Killer(10))
    assert cell.partial
    assert "a worker process died" in cell.warnings[0]
    assert sum(record.failure is None for record in cell.records) >= 10


def test_a_second_ctrl_c_ends_at_once() -> None:
    class Impatient(Silence):
        def update(self, snapshot: Snapshot) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with running(Behaviour(first=0.5)) as url:
        plan = small_plan(url, "constant:20", requests=None, seconds=60.0)
        with pytest.raises(KeyboardInterrupt):
            list(run_cells(prepare(plan), Impatient()))


def test_a_cell_in_which_nothing_was_due_says_so(url: str) -> None:
    plan = small_plan(url, "poisson:0.001", extent=Extent(seconds=0.1))
    assert "no request was due" in run_one(plan).warnings[0]


def test_an_extent_without_an_end_is_refused() -> None:
    for wrong in ({"seconds": None}, {"seconds": 0}, {"requests": 0}, {"warmup": -1}):
        with pytest.raises(LoadTestError):
            Extent(**wrong)
