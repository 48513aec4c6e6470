"""Servers and worker processes for all tests here: starting them takes most of the time."""

from collections.abc import Iterator, Sequence

import pytest

from loadtest.sending.interrupts import Interrupts
from loadtest.sending.job import Job
from loadtest.sending.pool import Collected, Pool
from loadtest.testserver import Behaviour, running
from tests.support.loadtest.runs import FIRST, GAP


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A server that answers at once."""
    with running() as url:
        yield url


@pytest.fixture(scope="session")
def delayed_url() -> Iterator[str]:
    """A server that needs 100 ms to the first token and 20 ms per pass."""
    with running(Behaviour(first=FIRST, gap=GAP)) as url:
        yield url


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[int, Pool]]:
    """Worker processes that have been started, by their number."""
    pools: dict[int, Pool] = {}
    yield pools
    for pool in pools.values():
        pool.close()


@pytest.fixture
def reused_workers(pools: dict[int, Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run load tests in worker processes of earlier tests, as the cells of one run are."""

    class ReusedPool:
        def __init__(self, workers: int) -> None:
            self._workers = workers
            if workers not in pools:
                pools[workers] = Pool(workers)

        def run(self, jobs: Sequence[Job], interrupts: Interrupts) -> Iterator[Collected]:
            # Out of the dictionary meanwhile: a run that fails leaves nothing for others.
            pool = pools.pop(self._workers)
            yield from pool.run(jobs, interrupts)
            pools[self._workers] = pool

        def close(self) -> None:
            pass

    monkeypatch.setattr("loadtest.sending.runner.Pool", ReusedPool)
