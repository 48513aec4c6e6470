"""What is found out about a server before it is loaded."""

import pytest

from loadtest.client.answer import Counting
from loadtest.client.probe import base_url
from loadtest.errors import LoadTestError
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.testserver import Behaviour, running
from loadtest.traffic.plan import Target
from tests.support.loadtest.runs import run_one, small_plan
from tests.support.servers import free_port

pytestmark = pytest.mark.usefixtures("reused_workers")


def test_no_server_is_explained() -> None:
    with pytest.raises(LoadTestError, match="no server answers at"):
        prepare(small_plan(f"http://127.0.0.1:{free_port()}"))


@pytest.mark.parametrize(
    "end",
    [
        *("", "/", "///", "/v1", "/v1/", "//v1//", "/v1/models", "/v1/completions"),
        *("/v1/completions/", "/v1/chat/completions", "/completions", "?key=value"),
    ],
)
def test_an_address_may_end_with_an_endpoint(url: str, end: str) -> None:
    assert base_url(f"{url}{end}") == url
    assert base_url(f" {url}/proxy{end} ") == f"{url}/proxy"
    assert prepare(small_plan(f"{url}{end}")).server.api == f"{url}/v1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", ""])
def test_an_invalid_url_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="no URL"):
        prepare(small_plan(url))


def test_the_address_of_another_kind_of_server_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="OpenAI-compatible"):
        prepare(small_plan(f"{url}/elsewhere"))
    assert prepare(small_plan(f"{url}/v1/")).server.url == url


def test_an_unknown_model_is_explained(url: str) -> None:
    with pytest.raises(LoadTestError, match="does not serve the model gpt, but test"):
        prepare(small_plan(url, target=Target(url, model="gpt")))


def test_a_server_without_token_counts_is_measured_by_chunks_with_a_warning() -> None:
    with running(Behaviour(counts=False, tokens_per_chunk=2)) as url:
        prepared = prepare(small_plan(url, requests=4))
        assert prepared.server.counting is Counting.CHUNKS
        (cell,) = run_cells(prepared, NoWatcher())
    assert "gaps between chunks" in prepared.warnings[0]
    assert {(record.visible_tokens, record.failure) for record in cell.records} == {(5, None)}


@pytest.mark.parametrize("volunteers", [True, False])
@pytest.mark.parametrize("refused", ["return_token_ids", "stream_options"])
def test_no_request_has_a_field_that_the_server_refused_at_first(
    volunteers: bool, refused: str
) -> None:
    """Usage in each chunk counts tokens, whether it was asked for or not."""
    refuses = frozenset({refused})
    with running(
        Behaviour(counts=False, refuses=refuses, volunteers_usage=volunteers, tokens_per_chunk=2)
    ) as url:
        prepared = prepare(small_plan(url, requests=4, tokens="5"))
        expected = Counting.RUNNING_USAGE if volunteers else Counting.CHUNKS
        assert prepared.server.counting is expected
        (cell,) = run_cells(prepared, NoWatcher())
    # Without usage a chunk of two tokens is taken for one.
    counted = 3 if refused == "stream_options" and not volunteers else 5
    assert {(record.visible_tokens, record.failure) for record in cell.records} == {(counted, None)}


def test_a_missing_api_key_is_explained_and_a_given_one_is_sent() -> None:
    with running(Behaviour(api_key="secret")) as url:
        with pytest.raises(LoadTestError, match="API key"):
            prepare(small_plan(url))
        header = {"authorization": "Bearer secret"}
        for target in (
            Target(url, api_key="secret"),
            Target(url, api_key="other", headers=header),
        ):
            cell = run_one(small_plan(url, target=target, requests=2))
            assert not any(record.failure for record in cell.records)
