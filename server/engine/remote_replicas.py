"""Replicas on other machines (data parallelism, `--headless`): that they come up, that they are the
same as those here, and that the server learns when one is gone. vLLM itself would wait forever.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

import zmq

from server.errors import EngineFailed, ExitStatus, StartError
from server.vllm_api import AsyncLLM, VllmConfig, envs

_COMPARED = {
    "vllm": "version of vLLM",
    "quietstar": "version of this server",
    "setup": "set of options about thinking",
    "weights": "checkpoint",
}


def num_remote(config: VllmConfig) -> int:
    """Replicas that this server waits for and that are not on this machine."""
    parallel = config.parallel_config
    if parallel.data_parallel_rank > 0 or parallel.data_parallel_external_lb:
        return 0
    return parallel.data_parallel_size - parallel.data_parallel_size_local


@contextmanager
def start_deadline(config: VllmConfig) -> Iterator[None]:
    """Raise `EngineFailed` in a `with` block in which replicas elsewhere do not come up in time."""
    number = num_remote(config)
    if not number:
        yield
        return
    seconds = envs.VLLM_ENGINE_READY_TIMEOUT_S
    parallel = config.parallel_config
    host, port = parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port
    print(f"Waiting on {host} port {port} for replicas on other machines ({number}) …", flush=True)

    def give_up(*_: object) -> NoReturn:
        raise EngineFailed(
            f"replicas on other machines ({number}) have not all come up within {seconds} s "
            f"(VLLM_ENGINE_READY_TIMEOUT_S): start them with --headless, "
            f"--data-parallel-start-rank, --data-parallel-address {host} and "
            f"--data-parallel-rpc-port {port}"
        )

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refuse_differences(replicas: Sequence[Mapping[str, Any]]) -> None:
    """Raise `StartError` unless all replicas would give the same answers.

    `replicas`: what each says of itself (`ThinkingWorkerMixin.identity`).
    """
    first = replicas[0]
    for rank, other in enumerate(replicas):
        different = [text for name, text in _COMPARED.items() if other[name] != first[name]]
        if different:
            raise StartError(
                f"replica {rank} has another {' and another '.join(different)} than replica 0: "
                "start all nodes with the same versions, checkpoint and options",
                ExitStatus.BAD_OPTION,
            )


@asynccontextmanager
async def watched(client: AsyncLLM) -> AsyncIterator[None]:
    """For a `with` block in which the client counts as dead as soon as a replica's connection is
    closed; vLLM watches processes of this machine only.
    """
    task = asyncio.create_task(_end_with_replica(client))
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
    # As vLLM does when a process of this machine ends.
    core.resources.engine_dead = True
    await asyncio.to_thread(core.shutdown)
