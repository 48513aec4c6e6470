"""What runs first in each process that the engine starts."""

import ctypes
import os
import signal
import sys

import psutil  # type: ignore[import-untyped]

from server.engine.failures import report_failures
from server.environment import SERVER_PROCESS

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """End this process with the one that started it, and not by Ctrl-C."""
    # Ctrl-C goes to a whole process group, and only the server should get it: it lets running
    # requests finish, and then stops the engine.
    os.setpgid(0, 0)
    # vLLM's processes would outlive a server that is killed. SIGKILL, because an engine that is
    # still starting reacts to any other signal only after it has waited for its server for minutes.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if not _has_server():
            os._exit(1)  # it was killed before this process could ask for that


def _has_server() -> bool:
    """Whether the server is among this process's ancestors, if a server started it at all."""
    server = os.environ.get(SERVER_PROCESS)
    return server is None or any(str(it.pid) == server for it in psutil.Process().parents())


# multiprocessing runs this module under this name in each process that vLLM starts, see __main__.
if __name__ == "__mp_main__":
    end_with_parent()
    report_failures()
