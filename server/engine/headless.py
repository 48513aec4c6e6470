"""A node without an HTTP server (`--headless`): replicas for a server on another machine.

What vLLM's own `run_headless` does (vllm/entrypoints/cli/serve.py), with the engine arguments
prepared for thinking; and it ends when that server does.
"""

import signal
import socket
import time
from multiprocessing import connection
from typing import NoReturn

import psutil  # type: ignore[import-untyped]

from server.engine.engine import engine_config, engine_failure
from server.engine.failures import failure_file
from server.errors import EngineFailed, StartError
from server.vllm_api import (
    AsyncEngineArgs,
    CoreEngineProcManager,
    Executor,
    ParallelConfig,
    envs,
    get_tcp_uri,
    openmp_environment,
)

# Between two looks at the replicas' connections.
_SECONDS = 1.0


def serve_headless(engine_args: AsyncEngineArgs) -> None:
    """Run this node's replicas until SIGTERM or SIGINT; then running requests have
    `--shutdown-timeout` seconds.

    Raises `StartError` where vLLM refuses an option, `EngineFailed` where a replica does not start
    or dies, and where the server is gone.
    """
    check_node_options(engine_args)
    config = engine_config(engine_args, headless=True)
    parallel = config.parallel_config
    addresses = _addresses_of(parallel.data_parallel_master_ip)
    with failure_file() as file:
        with openmp_environment(config):
            manager = CoreEngineProcManager(
                local_engine_count=parallel.data_parallel_size_local,
                start_index=parallel.data_parallel_rank,
                local_start_index=0,
                vllm_config=config,
                local_client=False,
                handshake_address=get_tcp_uri(
                    parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port
                ),
                executor_class=Executor.get_class(config),
                log_stats=not engine_args.disable_log_stats,
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        try:
            _wait_for_end(manager, parallel, addresses)
            raise engine_failure("a replica has ended", file)
        except _Stopped:
            manager.shutdown(timeout=config.shutdown_timeout)
        finally:
            manager.shutdown(timeout=0)


def check_node_options(engine_args: AsyncEngineArgs) -> None:
    """Raise `StartError` unless the options say which replicas are this node's."""
    size, local = engine_args.data_parallel_size, engine_args.data_parallel_size_local
    if local is None or not 0 < local < size:
        raise StartError(
            "--headless needs --data-parallel-size-local, the number of this node's replicas, and "
            "--data-parallel-size, the number of all, which must be larger"
        )
    start = engine_args.data_parallel_start_rank
    if start is None or not 0 <= start <= size - local:
        raise StartError(
            "--headless needs --data-parallel-start-rank, the number of this node's first replica: "
            f"from 0 to {size - local}"
        )


class _Stopped(Exception):
    """A signal asks this node to end."""


def _stop(number: int, frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise _Stopped


def _addresses_of(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise StartError(f"--data-parallel-address {host}: {error}") from error


def _wait_for_end(
    manager: CoreEngineProcManager, parallel: ParallelConfig, addresses: set[str]
) -> None:
    """Wait until a replica ends.

    Raises `EngineFailed` when the server is not there in time, or ends: vLLM's replicas would wait
    for it forever.
    """
    host, port = parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port
    deadline = time.monotonic() + envs.VLLM_ENGINE_READY_TIMEOUT_S
    was_connected = False
    while not connection.wait(manager.sentinels(), timeout=_SECONDS):
        is_connected = all(_is_connected(process.pid, addresses) for process in manager.processes)
        if was_connected and not is_connected:
            raise EngineFailed(
                f"the server at {host} has ended, or has refused this node: its own last line says "
                "why"
            )
        if not was_connected and not is_connected and time.monotonic() > deadline:
            raise EngineFailed(
                f"no server waits for replicas on {host} port {port} (--data-parallel-address, "
                "--data-parallel-rpc-port)"
            )
        was_connected = was_connected or is_connected


def _is_connected(process_id: int | None, addresses: set[str]) -> bool:
    """Whether a process has a connection to another one at one of these addresses."""
    try:
        connections = psutil.Process(process_id).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    own_ports = {it.laddr.port for it in connections if it.status == psutil.CONN_LISTEN}
    return any(
        it.status == psutil.CONN_ESTABLISHED
        and it.raddr.ip.removeprefix("::ffff:") in addresses
        and not own_ports & {it.laddr.port, it.raddr.port}
        for it in connections
    )
