"""A node without an HTTP server (`--headless`): replicas for a server on another machine, or a part
of its model.

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
from server.engine.remote_replicas import time_limit
from server.errors import EngineFailed, StartError
from server.vllm_api import (
    AsyncEngineArgs,
    CoreEngineProcManager,
    Executor,
    MultiprocExecutor,
    ParallelConfig,
    VllmConfig,
    envs,
    get_tcp_uri,
    openmp_environment,
)

# Between two looks at the replicas' connections.
_SECONDS = 1.0


def serve_headless(engine_args: AsyncEngineArgs) -> None:
    """Run this node's replicas until SIGTERM or SIGINT; then running requests have
    `--shutdown-timeout` seconds. Or its part of a model, which ends at once.

    Raises `StartError` where vLLM refuses an option, `EngineFailed` where a replica does not start
    or dies, and where the server is gone.
    """
    check_node_options(engine_args)
    config = engine_config(engine_args, headless=True)
    if engine_args.nnodes > 1:
        _run_ranks(config)
    else:
        _run_replicas(config, log_stats=not engine_args.disable_log_stats)


def _run_ranks(config: VllmConfig) -> None:
    """What vLLM's `MultiprocExecutor` does on a node that is not the first."""
    parallel = config.parallel_config
    host, port = parallel.master_addr, parallel.master_port
    seconds = envs.VLLM_ENGINE_READY_TIMEOUT_S
    no_server = (
        f"no server waits for this node on {host} port {port} (--master-addr, --master-port), or "
        f"other nodes are missing, after {seconds} s (VLLM_ENGINE_READY_TIMEOUT_S)"
    )
    with failure_file() as file:
        try:
            with time_limit(seconds, no_server):
                executor = MultiprocExecutor(config, monitor_workers=False)
        except (RuntimeError, ValueError, OSError) as error:
            raise engine_failure("this node did not start", file, str(error)) from error
    _stop_by_signal()
    processes = [worker.proc for worker in executor.workers]
    ends = [each.sentinel for each in processes]
    try:
        while not connection.wait(ends, timeout=_SECONDS):
            are_connected = all(_is_connected_to(each.pid, port) for each in processes)
            # A process that has just died has no connection either.
            if not are_connected and not connection.wait(ends, timeout=_SECONDS):
                raise EngineFailed(_server_gone(host))
        raise EngineFailed("a part of the model on this node has ended, or its server has")
    except _Stopped:
        pass
    finally:
        for each in processes:
            each.kill()
        executor.shutdown()


def _run_replicas(config: VllmConfig, *, log_stats: bool) -> None:
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
                log_stats=log_stats,
            )
        _stop_by_signal()
        try:
            _wait_for_end(manager, parallel, addresses)
            raise engine_failure("a replica has ended", file)
        except _Stopped:
            manager.shutdown(timeout=config.shutdown_timeout)
        finally:
            manager.shutdown(timeout=0)


def check_node_options(engine_args: AsyncEngineArgs) -> None:
    """Raise `StartError` unless the options say which replicas, or which part, are this node's."""
    if engine_args.nnodes > 1:
        if engine_args.node_rank == 0:
            raise StartError(
                "--headless needs --node-rank, from 1 to "
                f"{engine_args.nnodes - 1}: node 0 has the HTTP server"
            )
        return
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


def _stop_by_signal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


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
            # A process that has just died has no connection either.
            if connection.wait(manager.sentinels(), timeout=_SECONDS):
                return
            raise EngineFailed(_server_gone(host))
        if not was_connected and not is_connected and time.monotonic() > deadline:
            raise EngineFailed(
                f"no server waits for replicas on {host} port {port} (--data-parallel-address, "
                "--data-parallel-rpc-port)"
            )
        was_connected = was_connected or is_connected


def _server_gone(host: str) -> str:
    return f"the server at {host} has ended, or has refused this node: its own last line says why"


def _is_connected_to(process_id: int | None, port: int) -> bool:
    """Whether a process has a connection to this port."""
    try:
        connections = psutil.Process(process_id).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(it.status == psutil.CONN_ESTABLISHED and it.raddr.port == port for it in connections)


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
