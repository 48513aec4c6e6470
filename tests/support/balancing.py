"""HAProxy in front of several servers, with the configuration that this repository ships."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.load import eventually
from tests.support.servers import ROOT, RunningServer, free_port

CONFIGURATION = ROOT / "monitoring" / "haproxy.cfg"


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy that answers at `url`, and its socket for commands."""

    url: str
    admin_socket: Path

    def command(self, text: str) -> str:
        """What HAProxy answers to a command of its runtime API."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.admin_socket))
            connection.sendall(f"{text}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    @property
    def states(self) -> dict[str, str]:
        """UP, DOWN, DRAIN, …, by the server's name."""
        header, *rows = self.command("show stat quietstar 4 -1").strip().splitlines()
        names = header.removeprefix("# ").split(",")
        table = [dict(zip(names, row.split(","), strict=False)) for row in rows]
        return {row["svname"]: row["status"].partition(" ")[0] for row in table}


@contextmanager
def running_balancer(servers: Sequence[RunningServer]) -> Iterator[Balancer]:
    """HAProxy before three servers that it has found healthy. Without it the test is skipped, but
    fails in CI.
    """
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        message = "no HAProxy found: install it (on Debian: apt install haproxy)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    addresses = {
        f"SERVER_{number}": server.url.removeprefix("http://")
        for number, server in enumerate(servers, start=1)
    }
    listen = f"127.0.0.1:{free_port()}"
    with TemporaryDirectory() as folder:
        balancer = Balancer(f"http://{listen}", Path(folder) / "admin")
        places = {"LISTEN": listen, "ADMIN_SOCKET": str(balancer.admin_socket)}
        with subprocess.Popen(
            [program, "-f", str(CONFIGURATION), "-db"], env=os.environ | addresses | places
        ) as process:
            try:
                eventually(balancer.admin_socket.exists)
                eventually(lambda: set(balancer.states.values()) == {"UP"})
                yield balancer
            finally:
                process.terminate()
