"""The engines that are measured: as a server starts them."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.measures.pairs import engine_arguments
from tests.support.servers import DEMO


@pytest.mark.parametrize(
    ("checkpoint", "dtype"),
    [({"dtype": "float32"}, "float32"), ({"quantization_config": {"bits": 4}}, "bfloat16")],
)
def test_a_cpu_computes_as_a_server_would(
    checkpoint: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(checkpoint))
    assert engine_arguments(tmp_path, "cpu")["dtype"] == dtype


def test_the_demonstration_is_measured_in_float32() -> None:
    assert engine_arguments(DEMO, "cpu")["dtype"] == "float32"
