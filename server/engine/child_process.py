"""The first thing that runs in each process that the engine starts."""

import ctypes
import os
import signal
import sys

from server.failures import report_failures

_PR_SET_PDEATHSIG = 1

# Ctrl-C goes to a whole process group, and is meant for the server alone: it lets running requests
# finish, and then stops the engine.
os.setpgid(0, 0)
# vLLM's processes would outlive a server that is killed. SIGKILL, because an engine that is still
# starting takes note of any other signal when it has waited for its server for minutes.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
report_failures()
