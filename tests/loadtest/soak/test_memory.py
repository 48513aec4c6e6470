"""Memory of processes on this machine."""

import os
import socket

from loadtest.soak.memory import listening_process, memory_of


def test_the_listening_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert listening_process(f"http://127.0.0.1:{port}") == os.getpid()
    assert listening_process(f"http://127.0.0.1:{port}") is None


def test_memory_is_that_of_a_process_and_its_children() -> None:
    assert (memory_of(os.getpid()) or 0) > 10
    assert memory_of(None) is None
    assert memory_of(2**22 + 1) is None  # no process can have this number
