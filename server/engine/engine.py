"""A running engine, and what was thought and counted in its workers."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import zmq
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from quietstar_infer.config import read_json
from quietstar_infer.errors import CheckpointError
from server.engine.backlog import Backlog
from server.engine.failures import explanation, failure_file, known_remedy
from server.engine.grammars import GrammarChecker, grammar_checker
from server.engine.reminder import reminder
from server.engine.remote_replicas import (
    num_remote,
    refuse_differences,
    start_deadline,
    watched,
    watched_ranks,
)
from server.engine.usage_ledger import UsageLedger, collect_usage
from server.errors import EngineFailed, ExitStatus, StartError
from server.metrics.requests import RequestMetrics
from server.requests.aliases import Alias, checked_aliases
from server.vllm_api import (
    AsyncEngineArgs,
    AsyncLLM,
    IterationStats,
    SamplingParams,
    SchedulerStats,
    StatLoggerBase,
    StatLoggerFactory,
    ThinkingSetup,
    UsageContext,
    VllmConfig,
    check_vllm_config,
    openmp_environment,
    thinking_setup,
)

# After that the engine is killed. It takes some seconds to free what the operating system would
# free at once, and holds nothing that is worth more.
_SECONDS_TO_STOP = 5.0
_GENERATION_CONFIG = "generation_config.json"
# The checkpoint's own gate, or the entropy of the base prediction.
GateKind: TypeAlias = Literal["learned", "entropy"]


class Engine(NamedTuple):
    """A running engine and what it was started with."""

    client: AsyncLLM
    config: VllmConfig
    setup: ThinkingSetup
    # The names that requests may call the model by; the first is the one in responses.
    model_names: tuple[str, ...]
    # Further names, each with the fields that its requests have by default.
    aliases: Mapping[str, Mapping[str, Any]]
    request_metrics: RequestMetrics
    ledger: UsageLedger
    grammars: GrammarChecker
    backlog: Backlog

    @property
    def gate_kind(self) -> GateKind:
        """What decides about thoughts where a request has a threshold."""
        return "learned" if self.setup.config.gate else "entropy"

    @property
    def context_length(self) -> int:
        """Positions per sequence, thoughts included."""
        return self.config.model_config.max_model_len

    @property
    def vocab_size(self) -> int:
        return self.config.model_config.get_vocab_size()

    @property
    def block_size(self) -> int:
        """Tokens per block of the KV cache; the prefix cache shares whole blocks only."""
        return self.config.cache_config.block_size

    @property
    def replicas(self) -> int:
        """Engines that this server sends requests to (data parallelism), each with a batch and a KV
        cache of its own."""
        return len(self.client.engine_core.engine_ranks_managed)

    @property
    def max_rows(self) -> int:
        """Sequences in the batches of all replicas, at most."""
        return self.replicas * self.config.scheduler_config.max_num_seqs

    @property
    def has_priorities(self) -> bool:
        """Whether requests are scheduled by priority rather than by arrival."""
        return self.config.scheduler_config.policy == "priority"

    @property
    def cached_tokens(self) -> int:
        """Tokens that the KV caches of all replicas hold."""
        cache = self.config.cache_config  # vLLM has summed up the blocks of all
        return (cache.num_gpu_blocks or 0) * cache.block_size

    @property
    def cache_bytes(self) -> int | None:
        """What these caches take, where that is known beforehand."""
        of_each = self.config.cache_config.kv_cache_memory_bytes
        return of_each and self.replicas * of_each

    @property
    def prompt_chunk(self) -> int:
        """Tokens of a prompt that one pass prefills, at most."""
        return self.config.scheduler_config.max_num_batched_tokens

    @property
    def checkpoint(self) -> Path:
        """The local folder of the model."""
        return Path(self.config.model_config.model)

    async def take_thoughts(self, key: str) -> Mapping[str, list[dict[str, Any]]]:
        """Take the thoughts recorded under a key from the workers, by the engine's request id."""
        # The choices of a request may be made by several replicas, each by one.
        taken: dict[str, list[dict[str, Any]]] = {}
        for by_request in await self._ask_replicas("take_thoughts", key):
            taken.update(by_request)
        return taken

    async def drop_thoughts(self, key: str) -> None:
        """Delete the thoughts recorded under a key from the workers."""
        await self._ask_replicas("drop_thoughts", key)

    async def thought_usage(self) -> object:
        """What thoughts hold at this moment: the least that can be asked of the engine."""
        return await self._ask_replicas("thought_usage")

    async def thought_metrics(self) -> Sequence[Mapping[str, Any]]:
        """The counts of each replica since it started (`quietstar_infer.vllm_plugin.metrics`)."""
        return await self._ask_replicas("thought_metrics")

    async def identities(self) -> Sequence[Mapping[str, Any]]:
        """What each replica says of itself, see `ThinkingWorkerMixin.identity`."""
        return await self._ask_replicas("identity")

    async def rank_identities(self) -> Sequence[Mapping[str, Any]]:
        """What each rank says of itself, see `ThinkingWorkerMixin.rank_identity`."""
        core = self.client.engine_core
        by_replica = await core.call_utility_all_async(
            "collective_rpc", "rank_identity", None, (), {}
        )
        return [rank for by_rank in by_replica for rank in by_rank]

    async def _ask_replicas(self, method: str, *args: Any) -> list[Any]:
        """What a worker of each replica answers: all tensor-parallel ranks of one have the same
        thoughts and counts, and of several stages the last has them.
        """
        core = self.client.engine_core
        by_replica = await core.call_utility_all_async("collective_rpc", method, None, args, {})
        return [by_rank[-1] for by_rank in by_replica]


class _StepStatistics(StatLoggerBase):
    """Counts visible tokens with every engine step (whole responses come too late for a rate), and
    notes how many requests wait."""

    def __init__(self, metrics: RequestMetrics, backlog: Backlog) -> None:
        self._metrics = metrics
        self._backlog = backlog

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *args: Any,
        engine_idx: int = 0,
        **kwargs: Any,
    ) -> None:
        if scheduler_stats is not None:
            self._backlog.set_waiting(engine_idx, scheduler_stats.num_waiting_reqs)
        if iteration_stats is not None:
            self._metrics.count_visible_tokens(iteration_stats.num_generation_tokens)

    def log_engine_initialized(self) -> None:
        """vLLM requires the method; there is nothing to log."""


@asynccontextmanager
async def running_engine(
    engine_args: AsyncEngineArgs, aliases: Sequence[Alias], grammar_seconds: float
) -> AsyncIterator[Engine]:
    """An engine for the length of a `with` block, whose grammars compile in so many seconds.

    Raises `StartError` where vLLM refuses the options or an alias is not allowed, `EngineFailed`
    where the engine does not start.
    """
    if engine_args.node_rank > 0:
        raise StartError(
            f"--node-rank {engine_args.node_rank} is a node without an HTTP server: add --headless"
        )
    config = engine_config(engine_args)
    setup, names = thinking_setup(config), _model_names(engine_args)
    more_names = checked_aliases(aliases, names, setup.limits)
    metrics = RequestMetrics(names[0], setup.limits.max_budget)
    backlog = Backlog()
    with grammar_checker(config, grammar_seconds) as grammars:
        with reminder():
            client = _start(config, engine_args, metrics, backlog)
        # vLLM would compile grammars in the event loop, twice.
        client.input_processor.structured_outputs_config = None  # type: ignore[assignment]
        ledger = UsageLedger()
        collect_usage(client, ledger)
        engine = Engine(
            client, config, setup, names, more_names, metrics, ledger, grammars, backlog
        )
        try:
            async with _checked_replicas(engine):
                yield engine
        finally:
            # Its requests have had their time.
            client.shutdown(timeout=_SECONDS_TO_STOP)


@asynccontextmanager
async def _checked_replicas(engine: Engine) -> AsyncIterator[None]:
    """Those on other machines, and ranks there, for the length of a `with` block."""
    if num_remote(engine.config):
        refuse_differences("replica", await engine.identities())
        async with watched(engine.client):
            yield
        return
    parallel = engine.config.parallel_config
    if parallel.nnodes > 1 or parallel.distributed_executor_backend == "ray":
        refuse_differences("rank", await engine.rank_identities())
    async with watched_ranks(engine.client) if parallel.nnodes > 1 else nullcontext():
        yield


def _start(
    config: VllmConfig, engine_args: AsyncEngineArgs, metrics: RequestMetrics, backlog: Backlog
) -> AsyncLLM:
    # A logger of ours would switch vLLM's statistics on, whatever the option.
    stat_loggers: list[StatLoggerFactory] = []
    if not engine_args.disable_log_stats:
        stat_loggers.append(lambda *_: _StepStatistics(metrics, backlog))
    with failure_file() as file:
        try:
            with openmp_environment(config), start_deadline(config):
                return AsyncLLM.from_vllm_config(
                    config,
                    stat_loggers=stat_loggers,
                    usage_context=UsageContext.OPENAI_API_SERVER,
                    enable_log_requests=engine_args.enable_log_requests,
                    aggregate_engine_logging=engine_args.aggregate_engine_logging,
                    disable_log_stats=engine_args.disable_log_stats,
                )
        except zmq.ZMQError as error:
            raise StartError(_address_problem(config, error), ExitStatus.ADDRESS_TAKEN) from error
        except (RuntimeError, ValueError, OSError) as error:
            raise engine_failure("the engine did not start", file, str(error)) from error


def engine_failure(what: str, file: Path, otherwise: str = "") -> EngineFailed:
    """`what` happened, and why: what the engine's processes wrote to the file, or `otherwise`."""
    reason = file.read_text() if file.exists() else otherwise
    remedy = known_remedy(reason)
    return EngineFailed(
        f"{what}: {explanation(reason)}" if reason else what,
        remedy.status if remedy else ExitStatus.ENGINE_FAILED,
    )


def _address_problem(config: VllmConfig, error: zmq.ZMQError) -> str:
    parallel = config.parallel_config
    return (
        f"cannot wait for replicas on {parallel.data_parallel_master_ip} port "
        f"{parallel.data_parallel_rpc_port} (--data-parallel-address, --data-parallel-rpc-port): "
        f"{error}"
    )


def engine_config(engine_args: AsyncEngineArgs, headless: bool = False) -> VllmConfig:
    """vLLM's whole configuration; raises `StartError` where it refuses the options, or where they
    do not go together.
    """
    try:
        config = engine_args.create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER, headless=headless
        )
        check_vllm_config(config)
    except CheckpointError as error:
        raise StartError(str(error), ExitStatus.NO_MODEL) from error
    except ValidationError as error:
        raise StartError("; ".join(map(_problem, error.errors()))) from error
    # Whatever the options make vLLM import, open or compute there.
    except Exception as error:
        remedy = known_remedy(error)
        status = remedy.status if remedy else ExitStatus.BAD_OPTION
        raise StartError(explanation(error), status) from error
    _check_request_defaults(config)
    return config


def _check_request_defaults(config: VllmConfig) -> None:
    """Of the sampling parameters of requests, which vLLM reads anew for each."""
    model = config.model_config
    is_own = model.generation_config in ("auto", "vllm")
    folder = Path(model.model if is_own else model.generation_config)
    where, status = str(folder), ExitStatus.NO_MODEL
    if not is_own or model.override_generation_config:
        where = "--generation-config, --override-generation-config"
        status = ExitStatus.BAD_OPTION
    try:
        if (folder / _GENERATION_CONFIG).exists():
            _check_end_tokens(read_json(folder / _GENERATION_CONFIG))
        SamplingParams(**model.get_diff_sampling_param())
    # transformers and vLLM raise errors of many kinds.
    except Exception as error:
        raise StartError(
            f"{where}: the defaults of requests cannot be used: {explanation(error)}", status
        ) from error


def _check_end_tokens(fields: Mapping[str, Any]) -> None:
    ids = fields.get("eos_token_id")
    if not all(type(it) is int for it in (ids if isinstance(ids, list) else [ids or 0])):
        raise ValueError(f"eos_token_id is {ids!r}, expected a token id or a list of them")


def _problem(error: ErrorDetails) -> str:
    """What pydantic finds wrong with an option, with its name where it knows it."""
    option = "-".join(str(part) for part in error["loc"]).replace("_", "-")
    message = error["msg"].removeprefix("Value error, ")
    return f"--{option} is {error['input']!r}: {message}" if option else message


def _model_names(engine_args: AsyncEngineArgs) -> tuple[str, ...]:
    names = engine_args.served_model_name or engine_args.model
    return (names,) if isinstance(names, str) else tuple(names)
