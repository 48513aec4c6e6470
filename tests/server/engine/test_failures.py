"""Why an engine did not start: known errors of the libraries, and real engines that fail."""

import errno
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.engine.failures import (
    FILE_VARIABLE,
    explanation,
    failure_file,
    known_remedy,
    report_failures,
)
from server.errors import ExitStatus
from tests.support.servers import DEMO, ROOT, START_SECONDS

pytestmark = pytest.mark.slow

ENGINE_LOGGER = "vllm.v1.engine.core"
COMPILER_OUTPUT = """C++ compile error

Command:
g++ /tmp/x.main.cpp -I/usr/include/python3.11 -o /tmp/x.so

Output:
/tmp/x.main.cpp:1:10: fatal error: Python.h: No such file or directory
compilation terminated."""


@pytest.mark.parametrize(
    ("error", "status", "advice"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.safetensors"),
            ExitStatus.DISK_FULL,
            "make room",
        ),
        (
            RuntimeError("ld: final link failed: No space left on device"),
            ExitStatus.DISK_FULL,
            "make room",
        ),
        (MemoryError(), ExitStatus.OUT_OF_MEMORY, "not enough memory"),
        (
            RuntimeError(
                "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
            ),
            ExitStatus.ENGINE_FAILED,
            "a process of the engine was killed",
        ),
        (
            NotImplementedError("FP8 KV cache on CPU requires x86 with AVX-512 or AMX."),
            ExitStatus.BAD_OPTION,
            "--kv-cache-dtype does not work on this machine",
        ),
        (
            ValueError("No tokenizer registered for tokenizer_mode='nosuch'."),
            ExitStatus.BAD_OPTION,
            "--tokenizer-mode is not known",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate"),
            ExitStatus.OUT_OF_MEMORY,
            "not enough memory",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            ExitStatus.OUT_OF_MEMORY,
            "not enough memory",
        ),
        (
            ValueError("No available memory for the cache blocks."),
            ExitStatus.OUT_OF_MEMORY,
            "not enough memory",
        ),
        (
            ImportError("libnuma.so.1: cannot open shared object file"),
            ExitStatus.ENGINE_FAILED,
            "install libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora)",
        ),
        (
            RuntimeError("No working C++ compiler found in cpp.cxx: (None, 'g++')"),
            ExitStatus.ENGINE_FAILED,
            "install g++ (Debian, Ubuntu) or gcc-c++ (Fedora)",
        ),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "g++"),
            ExitStatus.ENGINE_FAILED,
            "install g++ (Debian, Ubuntu) or gcc-c++ (Fedora)",
        ),
    ],
)
def test_a_known_error_has_a_remedy(error: Exception, status: ExitStatus, advice: str) -> None:
    remedy = known_remedy(error)
    assert remedy is not None
    assert remedy.status is status
    assert advice in explanation(error)
    assert str(error) in explanation(error)
    assert "\n" not in explanation(error)


def test_only_the_line_of_the_error_is_shown_of_a_compilers_output() -> None:
    line = explanation(RuntimeError(COMPILER_OUTPUT))
    assert "install python3-dev (Debian, Ubuntu) or python3-devel (Fedora)" in line
    assert line.endswith("(/tmp/x.main.cpp:1:10: fatal error: Python.h: No such file or directory)")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("head size 7\n is not supported"), "head size 7 is not supported"),
        (RuntimeError("an illegal memory access"), "an illegal memory access"),
        (KeyError("weight"), "KeyError: 'weight'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_unknown_error_is_shown_unchanged(error: Exception, line: str) -> None:
    assert known_remedy(error) is None
    assert explanation(error) == line


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The logger of vLLM's engine process, without a filter of another test."""
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    logger = logging.getLogger(ENGINE_LOGGER)
    monkeypatch.setattr(logger, "filters", [])
    return logger


def log(logger: logging.Logger, error: Exception, cause: Exception | None = None) -> None:
    try:
        raise error from cause
    except Exception:
        logger.exception("failed")


def test_the_first_error_with_a_remedy_is_reported(
    caplog: pytest.LogCaptureFixture, logger: logging.Logger
) -> None:
    with failure_file() as file:
        report_failures()
        for error in (ValueError("odd"), RuntimeError("out of memory"), RuntimeError("follows")):
            log(logger, error)
        logger.error("without an exception")
        assert file.read_text() == "out of memory"
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    assert FILE_VARIABLE not in os.environ
    assert not Path(file).exists()


def test_the_root_of_an_error_is_reported_and_logged_once(
    caplog: pytest.LogCaptureFixture, logger: logging.Logger
) -> None:
    with failure_file() as file:
        report_failures()
        log(logger, RuntimeError("See root cause above"), cause=KeyError("weight"))
        log(logger, RuntimeError("WorkerProc initialization failed"))
        assert file.read_text() == "KeyError: 'weight'"
    assert len(caplog.records) == 1


# A module that makes an unknown error where a worker imports its model runner.
FAULT = """
import sys
from importlib.abc import MetaPathFinder

class Fault(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "vllm.v1.worker.cpu_model_runner":
            raise KeyError("a fault of this test")

sys.meta_path.insert(0, Fault())
"""


@dataclass(frozen=True)
class FailedStart:
    """A server whose engine did not start."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def failed_starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FailedStart]:
    """Two servers whose engines do not start, started at the same time."""
    library, fault = tmp_path_factory.mktemp("library"), tmp_path_factory.mktemp("fault")
    # The loader finds a file that is not a library, so that vLLM's own library does not load.
    (library / "libnuma.so.1").write_text("not a library")
    # Python imports this one first, in every process.
    (fault / "sitecustomize.py").write_text(FAULT)
    starting = {
        "libnuma": start(LD_LIBRARY_PATH=str(library)),
        "fault": start(PYTHONPATH=str(fault)),
    }
    failed = {}
    for name, process in starting.items():
        out, err = process.communicate(timeout=START_SECONDS)
        failed[name] = FailedStart(process.returncode, out, err)
    return failed


def start(**environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "server", str(DEMO), "--port", "0", "--enforce-eager"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_without_libnuma_the_error_says_what_to_install(
    failed_starts: dict[str, FailedStart],
) -> None:
    failed = failed_starts["libnuma"]
    assert failed.status == ExitStatus.ENGINE_FAILED
    assert "Traceback" not in failed.out + failed.err
    (line,) = failed.err.splitlines()
    assert line.startswith("python -m server: the engine did not start: ")
    assert "install libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora)" in line
    assert "init_cpu_memory_env" in line


def test_the_first_error_of_the_engine_is_the_last_line(
    failed_starts: dict[str, FailedStart],
) -> None:
    failed = failed_starts["fault"]
    assert failed.status == ExitStatus.ENGINE_FAILED
    printed = failed.out + failed.err
    assert printed.count("Traceback") == 1
    assert "See root cause above" not in printed
    last = failed.err.splitlines()[-1]
    assert last == "python -m server: the engine did not start: KeyError: 'a fault of this test'"
