"""What the machine lacks, as the libraries put it."""

import errno
import logging
import os
import sys
from pathlib import Path

import pytest

from server.errors import ExitStatus
from server.failures import FILE_VARIABLE, advice, failure_reports, lacking, report_failures

ENGINE_LOGGER = "vllm.v1.engine.core"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.safetensors"), ExitStatus.DISK_FULL),
        (RuntimeError("ld: final link failed: No space left on device"), ExitStatus.DISK_FULL),
        (MemoryError(), ExitStatus.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), ExitStatus.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ExitStatus.OUT_OF_MEMORY),
        (ValueError("No available memory for the cache blocks."), ExitStatus.OUT_OF_MEMORY),
        (ValueError("head size 7 is not supported"), None),
        (RuntimeError("an illegal memory access was encountered"), None),
    ],
)
def test_what_is_lacking(error: Exception, status: ExitStatus | None) -> None:
    assert lacking(error) is status
    assert str(error) in advice(error)
    assert "\n" not in advice(error)


def test_the_engine_reports_what_is_lacking(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    logger = logging.getLogger(ENGINE_LOGGER)
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with failure_reports() as file:
        report_failures()
        for error in (ValueError("odd"), RuntimeError("out of memory"), RuntimeError("follows")):
            try:
                raise error
            except Exception:
                logger.exception("failed")
        logger.error("without an exception")
        assert file.read_text() == "out of memory"
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    assert FILE_VARIABLE not in os.environ
    assert not Path(file).exists()
