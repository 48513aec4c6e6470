"""Environment variables that must be set before vLLM is imported; its processes inherit them."""

import os

DEFAULTS = {
    # vLLM narrates its start on some hundred lines.
    "VLLM_LOGGING_LEVEL": "ERROR",
    # vLLM reports models and hardware to its makers unless told otherwise.
    "VLLM_NO_USAGE_STATS": "1",
    # fork, the default, does not go with threads and accelerators; vLLM's own command line sets
    # this too.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "false",
    # torch speaks of missing Triton, of memory nodes and of names that vLLM should not use.
    "TORCH_LOGS": "-torch._library",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


# With these set, prometheus_client would write metrics to files, for other processes to add up. One
# process has all of this server's; files left by an earlier run would be added to them.
NOT_FOR_US = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def set_defaults() -> None:
    """Set what the user has not set, and unset what would do harm."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in NOT_FOR_US:
        os.environ.pop(name, None)
