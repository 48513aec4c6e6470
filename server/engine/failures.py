"""Why a server did not start: what the machine lacks, found in errors of vLLM, torch and the hub.

The engine fails in processes of its own, which tell the server's one through a file.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import ExitStatus

# The file that the engine's processes write to.
FILE_VARIABLE = "QUIETSTAR_FAILURE_FILE"
# The loggers that report an engine's failure, each with its traceback.
_REPORTERS = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
# Phrases of the libraries' messages: most are plain RuntimeErrors and ValueErrors.
_PHRASES = {
    ExitStatus.DISK_FULL: ("no space left on device", "disk quota exceeded"),
    ExitStatus.OUT_OF_MEMORY: (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "available memory",  # vLLM on the CPU, and on the GPU where nothing is left for the cache
        "free memory on device",
        "kv cache is needed, which is larger than the available",
    ),
}
_ADVICE = {
    ExitStatus.DISK_FULL: "make room, or point HF_HOME (models) and VLLM_CACHE_ROOT (compiled "
    "kernels) to another disk",
    ExitStatus.OUT_OF_MEMORY: "not enough memory: lower --kv-cache-memory-bytes, "
    "--gpu-memory-utilization, --max-model-len or --max-num-seqs",
}


def lacking(error: BaseException | str) -> ExitStatus | None:
    """What the machine lacks, going by an error; None where it is something else."""
    if isinstance(error, MemoryError):
        return ExitStatus.OUT_OF_MEMORY
    text = str(error).lower()
    for status, phrases in _PHRASES.items():
        if any(phrase in text for phrase in phrases):
            return status
    return None


def advice(error: BaseException | str) -> str:
    """The error's message in one line, with what to do where the machine lacks something."""
    message = " ".join(str(error).split()) or type(error).__name__
    status = lacking(error)
    return f"{_ADVICE[status]} ({message})" if status else message


@contextmanager
def failure_reports() -> Iterator[Path]:
    """The file that tells, after the engine has failed, why."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "failure"
        os.environ[FILE_VARIABLE] = str(file)
        try:
            yield file
        finally:
            del os.environ[FILE_VARIABLE]


def report_failures() -> None:
    """In a process of the engine: write what the machine lacks to the file, in place of the
    traceback. Other errors keep theirs."""
    if FILE_VARIABLE in os.environ:
        for name in _REPORTERS:
            logging.getLogger(name).addFilter(_report)


def _report(record: logging.LogRecord) -> bool:
    """A filter of a logger: whether the record is printed."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    file = Path(os.environ[FILE_VARIABLE])
    if not file.parent.exists():
        return True  # the engine has long been running
    if lacking(error) and not file.exists():
        file.write_text(f"{error}")
    if file.exists():
        # The first failure is the reason for all that follow, and for the end of this process,
        # which would print it once more.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open to the end
        return False
    return True
