"""Replicas on other machines (data parallelism, `--headless`), and ranks there of a model that is
on several (`--nnodes`): that they come up, that they are the same as those here, and that the
server learns when one is gone. vLLM itself would wait forever.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]
import zmq

from server.errors import EngineFailed, ExitStatus, StartError
from server.vllm_api import AsyncLLM, VllmConfig, envs

_COMPARED = {
    "vllm": "version of vLLM",
    "quietstar": "version of this server",
    "setup": "set of options about thinking",
    "weights": "checkpoint",
    "checkpoint": "checkpoint",
}
# Between two looks at the connections of other nodes.
_SECONDS = 1.0


def num_remote(config: VllmConfig) -> int:
    """Replicas that this server waits for and that are not on this machine."""
    parallel = config.parallel_config
    if parallel.data_parallel_rank > 0 or parallel.data_parallel_external_lb:
        return 0
    return parallel.data_parallel_size - parallel.data_parallel_size_local


@contextmanager
def start_deadline(config: VllmConfig) -> Iterator[None]:
    """Raise `EngineFailed` in a `with` block if what is elsewhere does not come up in time."""
    number, parallel = num_remote(config), config.parallel_config
    if number:
        host, port = parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port
        awaited = f"replicas on other machines ({number})"
        options = (
            f"--data-parallel-start-rank, --data-parallel-address {host} and "
            f"--data-parallel-rpc-port {port}"
        )
    elif parallel.nnodes > 1:
        host, port = parallel.master_addr, parallel.master_port
        awaited = f"the other nodes ({parallel.nnodes - 1})"
        options = (
            f"--nnodes {parallel.nnodes}, --node-rank, --master-addr {host} and "
            f"--master-port {port}"
        )
    else:
        yield
        return
    print(f"Waiting on {host} port {port} for {awaited} …", flush=True)
    seconds = envs.VLLM_ENGINE_READY_TIMEOUT_S
    with time_limit(
        seconds,
        f"{awaited} have not all come up within {seconds} s (VLLM_ENGINE_READY_TIMEOUT_S): start "
        f"them with --headless, {options}",
    ):
        yield


@contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """Raise `EngineFailed` with the message in a `with` block of the main thread that takes
    longer.
    """

    def give_up(*_: object) -> NoReturn:
        raise EngineFailed(message)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refuse_differences(what: str, identities: Sequence[Mapping[str, Any]]) -> None:
    """Raise `StartError` unless all of what there is several times would give the same answers.

    `identities`: what each says of itself (`ThinkingWorkerMixin.identity`, `rank_identity`).
    """
    first = identities[0]
    for rank, other in enumerate(identities):
        different = [text for name, text in _COMPARED.items() if other.get(name) != first.get(name)]
        if different:
            raise StartError(
                f"{what} {rank} has another {' and another '.join(different)} than {what} 0: "
                "start all nodes with the same versions, checkpoint and options",
                ExitStatus.BAD_OPTION,
            )


@asynccontextmanager
async def watched(client: AsyncLLM) -> AsyncIterator[None]:
    """For a `with` block in which the client counts as dead as soon as a replica's connection is
    closed; vLLM watches processes of this machine only.
    """
    async with _running(_end_with_replica(client)):
        yield


@asynccontextmanager
async def watched_ranks(client: AsyncLLM) -> AsyncIterator[None]:
    """The same for ranks on other nodes."""
    port = client.vllm_config.parallel_config.master_port
    async with _running(_end_with_rank(client, port)):
        yield


@asynccontextmanager
async def _running(watch: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(watch)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _end_with_replica(client: AsyncLLM) -> None:
    core: Any = client.engine_core
    monitor = core.input_socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        await monitor.recv_multipart()
    finally:
        core.input_socket.disable_monitor()
    await _declare_dead(core)


async def _end_with_rank(client: AsyncLLM, port: int) -> None:
    """Each rank keeps a connection to the first one, by which they have found each other."""
    at_first = await asyncio.to_thread(_connected_to, port)
    are_there = True
    while are_there:
        await asyncio.sleep(_SECONDS)
        are_there = at_first <= await asyncio.to_thread(_connected_to, port)
    await _declare_dead(client.engine_core)


def _connected_to(port: int) -> set[Any]:
    """The other ends of the connections to a port of the engine's processes."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            for it in process.net_connections("tcp"):
                if it.status == psutil.CONN_ESTABLISHED and it.laddr.port == port:
                    found.add(it.raddr)
    return found


async def _declare_dead(core: Any) -> None:
    # As vLLM does when a process of this machine ends.
    core.resources.engine_dead = True
    await asyncio.to_thread(core.shutdown)
