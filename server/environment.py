"""Environment variables that must be set before vLLM is imported; its processes inherit them.

Imports nothing of vLLM, directly or not.
"""

import os

DEFAULTS = {
    # At INFO vLLM logs about a hundred lines while it starts.
    "VLLM_LOGGING_LEVEL": "ERROR",
    # vLLM reports models and hardware to its makers unless told otherwise.
    "VLLM_NO_USAGE_STATS": "1",
    # fork, the default, does not work with threads and accelerators; vLLM's own command line sets
    # this too.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "false",
    # torch warns about missing Triton, about memory nodes and about names that vLLM uses.
    "TORCH_LOGS": "-torch._library",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # And multiprocessing about what processes have left behind that had to be killed, after the
    # server's last line.
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore:resource_tracker",
}


SERVER_PROCESS = "QUIETSTAR_SERVER_PROCESS"
"""The id of the server's process, for those that it starts."""

# With these set, prometheus_client would write metrics to files, to be added up by another process.
# This server keeps all of its metrics in one process; files of an earlier run would be added.
UNWANTED = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def set_defaults() -> None:
    """Set what the user has not set, and unset what would do harm."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ[SERVER_PROCESS] = str(os.getpid())
    for name in UNWANTED:
        os.environ.pop(name, None)
