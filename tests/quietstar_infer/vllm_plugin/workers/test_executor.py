"""The engine in the processes of a server: a new request interrupts the multi-step of another."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import envs
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from quietstar_infer.vllm_plugin.options import (
    SINGLE_CPU_EXECUTOR,
    ThinkingOptions,
    prepare_engine_args,
)
from quietstar_infer.vllm_plugin.workers.executor import openmp_environment
from tests.support.checkpoints import write_random_checkpoint
from tests.support.engine import ENGINE_ARGS, EnginePool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not current_platform.is_cpu(), reason="on CUDA a multi-step is not interrupted"
    ),
]
LONG = 900
THREADS = "OMP_NUM_THREADS"


def ask(client: AsyncLLM, name: str, budget: int, tokens: int) -> Any:
    sampling_params = SamplingParams(
        max_tokens=tokens,
        ignore_eos=True,
        extra_args={"thought_budget": budget},
        output_kind=RequestOutputKind.DELTA,
    )
    return client.generate(TokensPrompt(prompt_token_ids=[1, 5, 9]), sampling_params, name)


def replicas(number: int) -> Any:
    """The configuration of so many CPU replicas on this machine, as far as it matters here."""
    parallel = SimpleNamespace(
        distributed_executor_backend=SINGLE_CPU_EXECUTOR,
        data_parallel_size=number,
        data_parallel_size_local=number,
    )
    return SimpleNamespace(parallel_config=parallel)


@pytest.mark.parametrize("bind", ["auto", "nobind"])
def test_replicas_share_the_cores(monkeypatch: pytest.MonkeyPatch, bind: str) -> None:
    """With more threads than cores each would wait for the others' turns."""
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setitem(vars(envs), "VLLM_CPU_OMP_THREADS_BIND", bind)
    cores = len(os.sched_getaffinity(0))
    for number in (2, cores, 2 * cores):
        with openmp_environment(replicas(number)):
            assert int(os.environ[THREADS]) == max(1, cores // number)
        assert THREADS not in os.environ


@pytest.mark.parametrize(("bind", "threads"), [("auto", "3"), ("0|1", None)])
def test_a_users_threads_and_cores_are_kept(
    monkeypatch: pytest.MonkeyPatch, bind: str, threads: str | None
) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    if threads is not None:
        monkeypatch.setenv(THREADS, threads)
    # vLLM remembers its environment once an engine has run in a process.
    monkeypatch.setitem(vars(envs), "VLLM_CPU_OMP_THREADS_BIND", bind)
    with openmp_environment(replicas(2)):
        assert os.environ.get(THREADS) == threads
    assert os.environ.get(THREADS) == threads


async def test_a_new_request_does_not_wait_for_a_multi_step(
    tmp_path: Path, engines: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.stop()  # the engine's process is forked from this one
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    engine_args = AsyncEngineArgs(
        model=str(write_random_checkpoint(tmp_path / "thinker", "mistral")),
        **{**ENGINE_ARGS, "disable_log_stats": True, "max_model_len": 1024},
    )
    prepare_engine_args(
        engine_args, ThinkingOptions(max_thought_budget=LONG, max_thought_burst=LONG)
    )
    client = AsyncLLM.from_engine_args(engine_args)
    try:
        thinker = ask(client, "thinker", LONG, tokens=2)
        await anext(thinker)
        second = asyncio.ensure_future(anext(thinker))
        newcomer = [output async for output in ask(client, "newcomer", 0, tokens=2)]
        assert newcomer[-1].finished
        assert not second.done()
        # And the interrupted thought reaches its end.
        assert (await second).finished
    finally:
        client.shutdown()
