"""Two nodes of a local Ray cluster have a half of a model each, and repeat the recordings.

Ray is not among the pinned packages: this is skipped without it. vLLM's CPU platform does not know
Ray: here it takes a made-up GPU of each node for its device.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quietstar_infer.params import ThoughtParams
from tests.support.engine import Ask, thinking_engine
from tests.support.servers import GOLDEN, ROOT

pytestmark = pytest.mark.slow
# Python runs a module of this name in every process that finds it, so in Ray's, too.
SITE = """
import importlib.abc, importlib.util, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vllm.platforms.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.CpuPlatform.ray_device_key = "GPU"
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a device each."""
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    from vllm.platforms.cpu import CpuPlatform

    (tmp_path / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(CpuPlatform, "ray_device_key", "GPU")
    node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 << 20}
    cluster = utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address)
        yield ray
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_two_nodes_repeat_the_recordings(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = GOLDEN / "engine_greedy_n4"
    recorded = json.loads((case / "generation.json").read_text())["generations"]
    asks = [
        Ask(
            one["input_ids"],
            ThoughtParams(budget=1, temperature=0.0),
            {"max_tokens": len(one["new_tokens"]), "ignore_eos": True},
        )
        for one in recorded
    ]
    with thinking_engine(
        case / "checkpoint", tensor_parallel_size=2, distributed_executor_backend="ray"
    ) as engine:
        client: Any = engine.llm.llm_engine.engine_core
        workers = client.engine_core.model_executor.ray_worker_handles
        assert len({worker.node_id for worker in workers}) == 2
        for one, (answer,) in zip(recorded, engine.run(asks), strict=True):
            assert answer.token_ids == one["new_tokens"]
            assert answer.thoughts == [step["thought"][1:-1] for step in one["steps"]]
