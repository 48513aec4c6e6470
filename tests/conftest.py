"""Settings that must be in place before torch and vLLM are imported, and the engines and servers
that tests of several folders share.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.engine import Engine, EnginePool

# The models of the tests are tiny: more threads than one would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Bound to one core, an engine would wait for whatever else runs there.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Engines in the test's own process can be looked into. Servers are processes of their own.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

# The fixtures of servers that tests of all packages share. Imported after the lines above.
pytest_plugins = ["tests.support.servers"]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Tests that share a server or engines run in the same process."""
    from tests.support.scheduling import SharedFixtureScheduling

    return SharedFixtureScheduling(config, log)


@pytest.fixture(scope="session")
def engines() -> Iterator["EnginePool"]:
    """Engines in this process: tests that ask for the same options share one."""
    from tests.support.engine import EnginePool

    with EnginePool() as pool:
        yield pool


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random checkpoint of a model family, the same for all tests."""
    from tests.support.checkpoints import write_random_checkpoint

    @cache
    def write(family: str) -> Path:
        return write_random_checkpoint(tmp_path_factory.mktemp(family), family)

    return write


@pytest.fixture(params=["synchronous", "asynchronous", "multi-step"])
def engine(
    request: pytest.FixtureRequest,
    engines: "EnginePool",
    random_checkpoint: Callable[[str], Path],
) -> "Engine":
    """A Llama that thinks, in each of the ways in which engine steps follow one another."""
    from tests.support.engine import SCHEDULES

    return engines.get(random_checkpoint("llama"), **SCHEDULES[request.param])
