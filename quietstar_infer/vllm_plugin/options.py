"""From a user's options to vLLM's engine arguments, and back in every process of the engine."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from vllm import envs
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform

from quietstar_infer.checkpoint import check_checkpoint
from quietstar_infer.config import (
    EmbeddingMode,
    QuietStarConfig,
    load_tokenizer,
    read_json,
)
from quietstar_infer.errors import CheckpointError, UnsupportedError
from quietstar_infer.params import ThoughtLimits, ThoughtParams
from quietstar_infer.plugin import register
from quietstar_infer.vllm_plugin.architectures import thinking_architecture
from quietstar_infer.vllm_plugin.speculation.policy import SpeculativeThoughts

SCHEDULER = "quietstar_infer.vllm_plugin.scheduler.ThinkingScheduler"
SINGLE_CPU_EXECUTOR = "quietstar_infer.vllm_plugin.workers.executor.SingleCPUExecutor"
CPU_WORKER = "quietstar_infer.vllm_plugin.workers.cpu.ThinkingCPUWorker"
CUDA_WORKER = "quietstar_infer.vllm_plugin.workers.cuda.ThinkingCUDAWorker"

V2_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
_CONFIG_KEY = "quietstar"


@dataclass(frozen=True)
class ThinkingOptions:
    """How a server thinks.

    `max_thought_budget`: the largest budget that a request may ask for, 0 = thinking off.
    `default_thought_budget`: of requests without one; None = the checkpoint's, at most the largest.
    `default_thought_temperature`: of the thoughts of requests without one.
    `default_thought_threshold`: of requests without one, in nats, None = the checkpoint's.
    `embedding_mode`: None = the checkpoint's. `max_recorded_thought_tokens`: how many thought
    tokens the worker's log holds for requests that asked to see their thoughts, until they are
    fetched.
    `max_thought_burst`: how many passes an engine step may run (multi-step) while all requests
    of the batch think; except with one CPU worker, a new request may have to wait for as many.
    1 = multi-step is off, None = the default for the device (`default_thought_burst`).
    `speculative_thoughts`: how many tokens of a thought are drafted and fed in one pass of a
    multi-step, at most; "auto" = where and as many as pay, by measurement, 0 = none. Thoughts are
    the same. Never with asynchronous scheduling. Neither multi-step nor drafts with pipeline
    parallelism.
    """

    max_thought_budget: int = 16
    default_thought_budget: int | None = None
    default_thought_temperature: float = ThoughtLimits.default_temperature
    default_thought_threshold: float | None = None
    embedding_mode: EmbeddingMode | None = None
    max_recorded_thought_tokens: int = 1_000_000
    max_thought_burst: int | None = None
    speculative_thoughts: SpeculativeThoughts = "auto"


@dataclass(frozen=True)
class ThinkingSetup:
    """What every process of the engine knows about thinking."""

    config: QuietStarConfig
    limits: ThoughtLimits
    max_recorded_thought_tokens: int
    max_thought_burst: int
    speculative_thoughts: SpeculativeThoughts = 0


def prepare_engine_args(engine_args: EngineArgs, options: ThinkingOptions) -> None:
    """Turn vLLM's engine arguments, in place, into those of an engine that thinks.

    A hub name is resolved to a local folder first, so that the checkpoint is checked before an
    engine is started. Raises `CheckpointError` and `UnsupportedError`, each with one sentence for
    the user, and `ValueError` where `options` contradict each other.
    """
    # In this process, too, should vLLM have loaded its plugins before ours was wanted.
    register()
    _refuse_unsupported(engine_args)
    folder = _local_checkpoint(engine_args)
    check_checkpoint(folder, has_base_model=engine_args.load_format != "dummy")
    if engine_args.tokenizer is not None:
        _check_tokenizer(engine_args.tokenizer, folder)
    config = QuietStarConfig.from_checkpoint(folder, options.embedding_mode)
    # What the first stage feeds in a pass has been sampled on the last one in the pass before.
    is_pipelined = engine_args.pipeline_parallel_size > 1
    setup = ThinkingSetup(
        config=config,
        limits=_limits(options, config),
        max_recorded_thought_tokens=options.max_recorded_thought_tokens,
        max_thought_burst=1 if is_pipelined else _thought_burst(options),
        speculative_thoughts=0 if is_pipelined else options.speculative_thoughts,
    )

    architecture = thinking_architecture(read_json(folder / "config.json"), str(folder))
    engine_args.served_model_name = engine_args.served_model_name or engine_args.model
    engine_args.model = str(folder)
    engine_args.hf_overrides = {**_overrides(engine_args), "architectures": [architecture]}
    engine_args.scheduler_cls = SCHEDULER
    engine_args.worker_cls = CPU_WORKER if current_platform.is_cpu() else CUDA_WORKER
    if _has_one_cpu_worker(engine_args):
        engine_args.distributed_executor_backend = SINGLE_CPU_EXECUTOR
    if not isinstance(engine_args.additional_config, dict):
        raise UnsupportedError("--additional-config must be a JSON object")
    engine_args.additional_config = {**engine_args.additional_config, _CONFIG_KEY: asdict(setup)}
    # vLLM's default on CUDA is V2, which does not run on the CPU: one runner serves both.
    os.environ[V2_RUNNER] = "0"


def _has_one_cpu_worker(engine_args: EngineArgs) -> bool:
    """Whether the engine is in a process of its own and gets one CPU worker."""
    return (
        current_platform.is_cpu()
        and envs.VLLM_ENABLE_V1_MULTIPROCESSING
        and engine_args.tensor_parallel_size == engine_args.pipeline_parallel_size == 1
        and engine_args.distributed_executor_backend in (None, "mp", "uni")
    )


def default_thought_burst() -> int:
    """`max_thought_burst` where the user gives none.

    On a CPU, what an engine step costs beside its pass adds to every thought, and a request that
    arrives interrupts a multi-step. On CUDA, asynchronous scheduling hides most of that cost behind
    the device's work, and a request that arrives would have to wait for the multi-step being run
    and for the one scheduled after it.
    """
    return 16 if current_platform.is_cpu() else 1


def thinking_setup(vllm_config: VllmConfig) -> ThinkingSetup:
    """What `prepare_engine_args` put into vLLM's configuration."""
    additional = vllm_config.additional_config
    if not isinstance(additional, dict) or _CONFIG_KEY not in additional:
        raise UnsupportedError(
            "the engine was not prepared for thinking: use "
            "quietstar_infer.vllm_plugin.options.prepare_engine_args"
        )
    fields: dict[str, Any] = additional[_CONFIG_KEY]
    return ThinkingSetup(
        config=QuietStarConfig.from_fields(fields["config"]),
        limits=ThoughtLimits(**fields["limits"]),
        max_recorded_thought_tokens=fields["max_recorded_thought_tokens"],
        max_thought_burst=fields["max_thought_burst"],
        speculative_thoughts=fields["speculative_thoughts"],
    )


def check_vllm_config(vllm_config: VllmConfig) -> None:
    """Raise `UnsupportedError` for what vLLM itself decides only when it has its whole
    configuration, `CheckpointError` for a model that cannot run here.
    """
    if vllm_config.use_v2_model_runner:
        raise UnsupportedError(
            "thinking needs vLLM's V1 model runner, and an option of yours asks for the V2 one: "
            "drop that option, or set VLLM_USE_V2_MODEL_RUNNER=0"
        )
    _check_context(thinking_setup(vllm_config).limits, vllm_config.model_config.max_model_len)
    if current_platform.is_cpu():
        _check_head_size(vllm_config.model_config.get_head_size())
    scheduler = vllm_config.scheduler_config
    room = scheduler.max_num_batched_tokens - scheduler.max_num_seqs
    needed = 1 if scheduler.enable_chunked_prefill else vllm_config.model_config.max_model_len
    if room < needed:
        raise UnsupportedError(
            f"max_num_batched_tokens is {scheduler.max_num_batched_tokens}, too small for "
            f"{scheduler.max_num_seqs} thinking sequences (max_num_seqs): it must be at least "
            f"{scheduler.max_num_seqs + needed}"
        )


def _check_context(limits: ThoughtLimits, context: int) -> None:
    """Refuse thoughts that no request can have, beside a prompt and an answer of one token each."""
    longest = limits.max_budget
    needed = 2 + ThoughtParams(longest).reserve
    if needed > context:
        raise UnsupportedError(
            f"the longest thought, of {longest} tokens (--max-thought-budget), takes a context of "
            f"{needed} with a prompt and an answer of one token each; this one has {context} "
            "(--max-model-len)"
        )


def _check_head_size(size: int) -> None:
    """Refuse what vLLM's attention on a CPU fails for with the first request, and the engine with
    it. Can go when vLLM looks at its own list.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if size not in sizes:
        raise CheckpointError(
            f"the model's heads have a size of {size} (head_dim in config.json), vLLM's attention "
            f"on a CPU takes {', '.join(map(str, sizes))}"
        )


def _refuse_unsupported(engine_args: EngineArgs) -> None:
    # docs/scale.md says why, of each.
    args = engine_args
    refusals = {
        "replicas that are on several machines each (--nnodes, --data-parallel-size)": (
            args.nnodes > 1 and args.data_parallel_size > 1
        ),
        "data parallelism by Ray (--data-parallel-backend)": args.data_parallel_backend == "ray",
        "several servers at once (--data-parallel-multi-port-external-lb)": (
            args.data_parallel_multi_port_external_lb
        ),
        "context parallelism": max(
            args.decode_context_parallel_size, args.prefill_context_parallel_size
        )
        > 1,
        "speculative decoding (--speculative-config)": args.speculative_config is not None,
        "pooling (--runner, --convert)": args.runner == "pooling"
        or args.convert not in ("auto", "none"),
        "KV transfer (--kv-transfer-config)": args.kv_transfer_config is not None,
        "a scheduler of your own (--scheduler-cls)": args.scheduler_cls is not None,
        "a worker of your own (--worker-cls)": args.worker_cls != "auto",
        "the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)": os.environ.get(V2_RUNNER) == "1",
        "prompt embeddings (--enable-prompt-embeds)": bool(args.enable_prompt_embeds),
        "texts that nobody tokenizes (--skip-tokenizer-init)": args.skip_tokenizer_init,
        "an executor of your own (--distributed-executor-backend)": (
            args.distributed_executor_backend not in (None, "mp", "uni", "ray")
        ),
    }
    if args.enable_lora:
        raise UnsupportedError(
            "adapters are not served (--enable-lora): merge the adapter into its base model, with "
            "merge_and_unload of peft, and serve the result"
        )
    for what, asked_for in refusals.items():
        if asked_for:
            raise UnsupportedError(f"thinking does not work with {what} yet: leave it out")


def _check_tokenizer(name: str, folder: Path) -> None:
    """Refuse a tokenizer with a token that is another one, or none, in the checkpoint's."""
    try:
        tokenizer = load_tokenizer(name)
    except CheckpointError as error:
        raise UnsupportedError(f"--tokenizer: {error}") from None
    ours = load_tokenizer(folder).get_vocab()
    for token, token_id in tokenizer.get_vocab().items():
        if ours.get(token) != token_id:
            raise UnsupportedError(
                f"--tokenizer {name} is not this model's: its token {token_id} is {token!r}, which "
                f"is {'none' if token not in ours else f'token {ours[token]}'} of {folder}"
            )


def _limits(options: ThinkingOptions, config: QuietStarConfig) -> ThoughtLimits:
    largest = options.max_thought_budget
    default = options.default_thought_budget
    if default is None:
        default = min(config.default_thought_budget, largest)
    threshold = options.default_thought_threshold
    if threshold is None:
        threshold = config.default_thought_threshold
    return ThoughtLimits(largest, default, options.default_thought_temperature, threshold)


def _thought_burst(options: ThinkingOptions) -> int:
    burst = options.max_thought_burst
    if burst is None:
        return default_thought_burst()
    if burst < 1:
        raise ValueError(f"the largest burst is {burst} passes, must be 1 or more")
    return burst


def _overrides(engine_args: EngineArgs) -> dict[str, Any]:
    if not isinstance(engine_args.hf_overrides, dict):
        raise UnsupportedError("thinking needs --hf-overrides to be a dictionary, not a function")
    return engine_args.hf_overrides


def _local_checkpoint(engine_args: EngineArgs) -> Path:
    """The folder of a checkpoint that is given by path or by hub name (downloaded, or taken from
    the cache).
    """
    folder = Path(engine_args.model)
    if folder.is_dir():
        return folder
    try:
        return Path(
            snapshot_download(
                engine_args.model,
                revision=engine_args.revision,
                cache_dir=engine_args.download_dir,
                allow_patterns=[
                    "*.json",
                    "*.safetensors",
                    "tokenizer*",
                    "*.model",
                    "*.txt",
                    "*.jinja",
                ],
            )
        )
    except HFValidationError:
        raise CheckpointError(f"{engine_args.model} is neither a folder nor a hub name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{engine_args.model} is not a folder, and cannot be fetched: {reason}"
        ) from None
