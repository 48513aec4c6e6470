"""vLLM's engine arguments, from a parsed command line to those of an engine that thinks."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError

from quietstar_infer.config import load_tokenizer, read_json
from server.engine.cpu_defaults import context_bytes, cpu_dtype, cpu_kv_cache_bytes, is_quantised
from server.engine.option_checks import check_start_options, check_template
from server.errors import ExitStatus, StartError
from server.vllm_api import (
    AsyncEngineArgs,
    FrontendArgs,
    ThinkingOptions,
    current_platform,
    get_kwargs,
    prepare_engine_args,
)

_FLOAT32 = ("float32", "float")


def frontend_arguments(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """argparse's keyword arguments of some options of `vllm serve`, by option name."""
    known = FrontendArgs._customize_cli_kwargs(get_kwargs(FrontendArgs))
    return {name: known[name] for name in names}


def engine_arguments(args: Namespace, options: ThinkingOptions) -> AsyncEngineArgs:
    """vLLM's engine arguments for a parsed command line, prepared for thinking.

    Raises `StartError`, and what `prepare_engine_args` does: `CheckpointError`, `UnsupportedError`
    and `ValueError`.
    """
    check_start_options(args)
    try:
        # With HF_HUB_OFFLINE set, vLLM looks for the model here and now.
        engine_args: AsyncEngineArgs = AsyncEngineArgs.from_cli_args(args)
    except LocalEntryNotFoundError:
        raise StartError(
            f"{args.model} is not a folder, and not in the cache of downloaded models",
            ExitStatus.NO_MODEL,
        ) from None
    prepare_engine_args(engine_args, options)
    _check_templates(Path(engine_args.model))
    # One for a long text, one for the others.
    engine_args.renderer_num_workers = max(engine_args.renderer_num_workers, 2)
    # vLLM's "auto" takes what can compile the first grammar that it gets, and has that compile all
    # later ones, which then fail or mean something else.
    if engine_args.structured_outputs_config.backend == "auto":
        engine_args.structured_outputs_config.backend = "xgrammar"
    checkpoint = read_json(Path(engine_args.model) / "config.json")
    if current_platform.is_cpu():
        _set_cpu_defaults(engine_args, checkpoint)
    if is_quantised(checkpoint) and engine_args.dtype in _FLOAT32:
        raise StartError(
            "--dtype is float32, but the checkpoint is quantised, and the kernels for that compute "
            "in 16 bits: use --dtype bfloat16, or leave it out"
        )
    return engine_args


def _check_templates(folder: Path) -> None:
    """Those of the checkpoint: one, or several with names."""
    templates = load_tokenizer(folder).chat_template or ""
    for template in templates.values() if isinstance(templates, dict) else [templates]:
        check_template(f"{folder}: chat template", template, ExitStatus.NO_MODEL)


def _set_cpu_defaults(engine_args: AsyncEngineArgs, checkpoint: Mapping[str, Any]) -> None:
    if engine_args.dtype == "auto":
        engine_args.dtype = cpu_dtype(checkpoint)
    has_cache_size = (
        engine_args.kv_cache_memory_bytes is not None
        or engine_args.gpu_memory_utilization != AsyncEngineArgs.gpu_memory_utilization
        or os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    )
    if not has_cache_size:
        bytes_per_number = 4 if engine_args.dtype in _FLOAT32 else 2
        # vLLM's -1: as long as the memory allows.
        length = engine_args.max_model_len if (engine_args.max_model_len or 0) > 0 else None
        engine_args.kv_cache_memory_bytes = cpu_kv_cache_bytes(
            context_bytes(checkpoint, length, bytes_per_number), _local_replicas(engine_args)
        )


def _local_replicas(engine_args: AsyncEngineArgs) -> int:
    """Replicas that are started on this machine."""
    if engine_args.data_parallel_external_lb or engine_args.data_parallel_rank is not None:
        return 1
    return max(1, engine_args.data_parallel_size_local or engine_args.data_parallel_size)
