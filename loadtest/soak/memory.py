"""The server's process and its memory, where it runs on this machine."""

import httpx
import psutil  # type: ignore[import-untyped]


def listening_process(url: str) -> int | None:
    """The process that listens at the port of a URL; None where none can be seen."""
    port = httpx.URL(url).port
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    pids = (
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    )
    return next(pids, None)


def memory_of(pid: int | None) -> float | None:
    """Resident memory in MiB of a process and all its descendants; None where it cannot be seen."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        processes = [process, *process.children(recursive=True)]
        return float(sum(each.memory_info().rss for each in processes)) / (1 << 20)
    except psutil.Error:
        return None
