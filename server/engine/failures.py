"""Why an engine did not start, in one line.

vLLM's engine fails in processes of its own, and the server's process learns only that they ended.
So the first process of the engine that fails writes the root of its error to a file
(`report_failures`), and the server makes one line of it (`explanation`), with a remedy where the
error is one that is known.
"""

import ctypes
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from server.errors import ExitStatus

# Names the file that the engine's processes write to.
FILE_VARIABLE = "QUIETSTAR_FAILURE_FILE"
# The loggers with which vLLM logs an engine's failure, each with its traceback.
_LOGGERS = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")


class Remedy(NamedTuple):
    """What to do about a known error, recognised by phrases of the libraries' messages: most of
    their errors are plain `RuntimeError`s and `ValueError`s."""

    status: ExitStatus
    advice: str
    phrases: tuple[str, ...]


_REMEDIES = (
    Remedy(
        ExitStatus.NO_MODEL,
        "the checkpoint cannot be served",
        ("does not fit the model that config.json describes", "numbers that are not finite"),
    ),
    Remedy(
        ExitStatus.BAD_OPTION,
        "--block-size is not supported by the attention backend here: leave it out",
        ("no common block size",),
    ),
    Remedy(
        ExitStatus.BAD_OPTION,
        "--kv-cache-dtype does not work on this machine, or with heads of this model's size: leave "
        "it out",
        ("fp8 kv cache",),
    ),
    Remedy(
        ExitStatus.BAD_OPTION,
        "--tokenizer-mode is not known",
        ("no tokenizer registered for tokenizer_mode",),
    ),
    Remedy(
        # A process that is killed says nothing: vLLM sees that it has ended.
        ExitStatus.ENGINE_FAILED,
        "a process of the engine was killed, which operating systems do where memory is short: "
        "lower --kv-cache-memory-bytes, --max-num-batched-tokens, --max-model-len or "
        "--max-num-seqs",
        ("failed core proc(s): {}", "failed core proc(s): {'enginecore': -9}"),
    ),
    Remedy(
        ExitStatus.ADDRESS_TAKEN,
        "the port at which the nodes meet is taken (--master-addr, --master-port)",
        ("the server socket has failed to listen",),
    ),
    Remedy(
        ExitStatus.DISK_FULL,
        "make room, or point HF_HOME (models) and VLLM_CACHE_ROOT (compiled kernels) to another "
        "disk",
        ("no space left on device", "disk quota exceeded"),
    ),
    Remedy(
        ExitStatus.OUT_OF_MEMORY,
        "not enough memory: lower --kv-cache-memory-bytes, --gpu-memory-utilization, "
        "--max-model-len or --max-num-seqs",
        (
            "out of memory",
            "memoryerror",
            "can't allocate memory",
            "cannot allocate memory",
            "available memory",  # vLLM on a CPU, and on a GPU with none left for the cache
            "free memory on device",
            "kv cache is needed, which is larger than the available",
        ),
    ),
    Remedy(
        ExitStatus.ENGINE_FAILED,
        "vLLM's CPU library needs libnuma.so.1: install libnuma1 (Debian, Ubuntu) or numactl-libs "
        "(Fedora)",
        ("libnuma.so.1",),
    ),
    Remedy(
        ExitStatus.ENGINE_FAILED,
        "kernels cannot be compiled without Python's headers: install python3-dev (Debian, Ubuntu) "
        "or python3-devel (Fedora)",
        ("python.h: no such file", "'python.h' file not found"),
    ),
    Remedy(
        ExitStatus.ENGINE_FAILED,
        "kernels cannot be compiled without a C++ compiler: install g++ (Debian, Ubuntu) or "
        "gcc-c++ (Fedora)",
        ("no working c++ compiler", "no such file or directory: 'g++'", "g++: not found"),
    ),
)


def known_remedy(error: BaseException | str) -> Remedy | None:
    """The remedy for an error; None where it is not a known one."""
    text = (error if isinstance(error, str) else _message(error)).lower()
    for remedy in _REMEDIES:
        if any(phrase in text for phrase in remedy.phrases):
            return remedy
    return None


def explanation(error: BaseException | str) -> str:
    """The error's message in one line, after the remedy where there is one."""
    remedy = known_remedy(error)
    text = error if isinstance(error, str) else _message(error)
    if remedy is None:
        return _one_line(text)
    # Of a compiler's long output, the line that matters.
    lines = [line for line in text.splitlines() if known_remedy(line) is remedy]
    return f"{remedy.advice} ({_one_line(lines[0] if lines else text)})"


@contextmanager
def failure_file() -> Iterator[Path]:
    """The file that the engine's processes write to, for the length of their start."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "failure"
        os.environ[FILE_VARIABLE] = str(file)
        try:
            yield file
        finally:
            del os.environ[FILE_VARIABLE]


def report_failures() -> None:
    """In a process of the engine: write its failure to the file.

    The traceback is logged only where it helps: for the first failure, and only if that has no
    known remedy. Later failures, in this process and in those that wait for it, follow from it.
    """
    if FILE_VARIABLE in os.environ:
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_report)


def _report(record: logging.LogRecord) -> bool:
    """A filter of a logger: whether the record is logged."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    file = Path(os.environ[FILE_VARIABLE])
    if not file.parent.exists():
        return True  # the engine started long ago
    is_first = not file.exists()
    text = _report_text(error)
    has_remedy = known_remedy(text) is not None
    if is_first or (has_remedy and known_remedy(file.read_text()) is None):
        file.write_text(text)
    # Python would print the error once more when it ends the process.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open to the end
    return is_first and not has_remedy


def _report_text(error: BaseException) -> str:
    """The message of the error that caused all others; of one with a remedy, if there is one."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = _message(next((cause for cause in causes if known_remedy(cause)), causes[-1]))
    # vLLM logs why its library does not load as a warning, and fails where it is first used.
    if "'_OpNamespace' '_C' object has no attribute" in text:
        text += _load_error("libnuma.so.1")
    return text


def _load_error(library: str) -> str:
    """What the loader says about a library, in brackets; empty where it can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return f" [{error}]"
    return ""


def _message(error: BaseException) -> str:
    """An error's message; with its type where messages are written for programmers."""
    text = str(error)
    is_prose = isinstance(error, RuntimeError | ValueError | OSError)
    if text and is_prose:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
