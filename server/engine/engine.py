"""A running engine, and what was thought and counted in its workers."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from server.engine.failures import explanation, failure_file, known_remedy
from server.engine.grammars import GrammarChecker, grammar_checker
from server.engine.reminder import reminder
from server.engine.usage_ledger import UsageLedger, collect_usage
from server.errors import EngineFailed, ExitStatus, StartError
from server.metrics.requests import RequestMetrics
from server.requests.aliases import Alias, checked_aliases
from server.vllm_api import (
    AsyncEngineArgs,
    AsyncLLM,
    IterationStats,
    SchedulerStats,
    StatLoggerBase,
    StatLoggerFactory,
    ThinkingSetup,
    UsageContext,
    VllmConfig,
    openmp_environment,
    thinking_setup,
)

# After that the engine is killed. It takes some seconds to free what the operating system would
# free at once, and holds nothing that is worth more.
_SECONDS_TO_STOP = 5.0
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
    def max_rows(self) -> int:
        """Sequences in one batch, at most."""
        return self.config.scheduler_config.max_num_seqs

    @property
    def has_priorities(self) -> bool:
        """Whether requests are scheduled by priority rather than by arrival."""
        return self.config.scheduler_config.policy == "priority"

    @property
    def cached_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        cache = self.config.cache_config
        return (cache.num_gpu_blocks or 0) * cache.block_size

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
        # All tensor-parallel ranks record the same.
        by_rank: list[dict[str, list[dict[str, Any]]]]
        by_rank = await self.client.collective_rpc("take_thoughts", args=(key,))
        return by_rank[0]

    async def drop_thoughts(self, key: str) -> None:
        """Delete the thoughts recorded under a key from the workers."""
        await self.client.collective_rpc("drop_thoughts", args=(key,))

    async def thought_usage(self) -> object:
        """What thoughts hold at this moment: the least that can be asked of the engine."""
        return await self.client.collective_rpc("thought_usage")

    async def thought_metrics(self) -> Mapping[str, Any]:
        """The engine's counts since it started, see `quietstar_infer.vllm_plugin.metrics`."""
        # Every tensor-parallel rank counts everything: a sum over ranks would count it twice.
        by_rank: list[dict[str, Any]] = await self.client.collective_rpc("thought_metrics")
        return by_rank[0]


class _VisibleTokens(StatLoggerBase):
    """Counts visible tokens with every engine step; whole responses come too late for a rate."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
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
    config = _engine_config(engine_args)
    setup, names = thinking_setup(config), _model_names(engine_args)
    more_names = checked_aliases(aliases, names, setup.limits)
    metrics = RequestMetrics(names[0], setup.limits.max_budget)
    with grammar_checker(config, grammar_seconds) as grammars:
        with reminder():
            client = _start(config, engine_args, metrics)
        # vLLM would compile grammars in the event loop, twice.
        client.input_processor.structured_outputs_config = None  # type: ignore[assignment]
        ledger = UsageLedger()
        collect_usage(client, ledger)
        try:
            yield Engine(client, config, setup, names, more_names, metrics, ledger, grammars)
        finally:
            # Its requests have had their time.
            client.shutdown(timeout=_SECONDS_TO_STOP)


def _start(config: VllmConfig, engine_args: AsyncEngineArgs, metrics: RequestMetrics) -> AsyncLLM:
    # A logger of ours would switch vLLM's statistics on, whatever the option.
    stat_loggers: list[StatLoggerFactory] = []
    if not engine_args.disable_log_stats:
        stat_loggers.append(lambda *_: _VisibleTokens(metrics))
    with failure_file() as file:
        try:
            with openmp_environment(config):
                return AsyncLLM.from_vllm_config(
                    config,
                    stat_loggers=stat_loggers,
                    usage_context=UsageContext.OPENAI_API_SERVER,
                    enable_log_requests=engine_args.enable_log_requests,
                    aggregate_engine_logging=engine_args.aggregate_engine_logging,
                    disable_log_stats=engine_args.disable_log_stats,
                )
        except (RuntimeError, ValueError, OSError) as error:
            reason = file.read_text() if file.exists() else str(error)
            remedy = known_remedy(reason)
            raise EngineFailed(
                f"the engine did not start: {explanation(reason)}",
                remedy.status if remedy else ExitStatus.ENGINE_FAILED,
            ) from error


def _engine_config(engine_args: AsyncEngineArgs) -> VllmConfig:
    try:
        return engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except ValidationError as error:
        raise StartError("; ".join(map(_problem, error.errors()))) from error
    except (ValueError, NotImplementedError) as error:
        raise StartError(str(error)) from error


def _problem(error: ErrorDetails) -> str:
    """What pydantic finds wrong with an option, with its name where it knows it."""
    option = "-".join(str(part) for part in error["loc"]).replace("_", "-")
    message = error["msg"].removeprefix("Value error, ")
    return f"--{option} is {error['input']!r}: {message}" if option else message


def _model_names(engine_args: AsyncEngineArgs) -> tuple[str, ...]:
    names = engine_args.served_model_name or engine_args.model
    return (names,) if isinstance(names, str) else tuple(names)
