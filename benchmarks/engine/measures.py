"""The table: what thinking costs, as ratios of two things measured in turn in one run.

Noise of the machine affects both sides of a ratio alike: they are measured one after the other,
several times, and the median of the repetitions' ratios counts.

| measure  | numerator | denominator |
|---|---|---|
| pass     | a thought pass: time per visible token at budget 8, / 9 | a decode step of stock vLLM |
|          | the same | stock vLLM's time for as many tokens as are fed in a thought pass |
| official | visible tokens per second | those of a loop that computes everything anew per token |
| company  | time per visible token in a batch half of which thinks | the same where none does |
| arrival  | time to the first token beside 16 requests that think | beside 16 that do not |
| adaptive | time per visible token of texts that are thought about where it pays | at budget 0 |
|          | requests without thoughts beside such | the same where none thinks |
| speculative | time per visible token of texts, with drafts of thoughts where these pay | without |
|          | the same, thought about where it pays | at budget 0 |
| context  | growth of the time per visible token with the context | that of stock vLLM |
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch

from benchmarks.engine.engine_handle import EngineHandle, launched_engine
from benchmarks.engine.load import Load, Request, per_token, random_requests, to_first
from benchmarks.engine.official import OfficialLoop
from benchmarks.engine.shapes import LARGER, Shape, write_base_model, write_model
from benchmarks.engine.spec import EngineSpec
from quietstar_infer.config import QuietStarConfig, load_tokenizer, read_json
from quietstar_infer.errors import UnsupportedError

MS = 1e3
GIB = 1 << 30
MeasureName = Literal[
    "pass", "official", "company", "arrival", "adaptive", "speculative", "context"
]
NAMES: tuple[MeasureName, ...] = get_args(MeasureName)
# By batch: what time with drafts is to be of the time without.
_SPECULATIVE_LIMITS = {1: 0.6, 4: 0.65, 16: 0.85}
Progress = Callable[[str], None]
DOCUMENTS = Path(__file__).parents[2] / "training/evaluations/tasks/demo-text.jsonl"
"""Texts of the demonstration, held out from its training."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often: the checkpoint's ratios `repeats` times, the larger model's
    `larger_repeats` times.
    """

    checkpoint: Path
    larger: Shape = LARGER
    only: tuple[MeasureName, ...] = NAMES
    batches: tuple[int, ...] = (1, 4, 16, 64)
    budget: int = 8
    repeats: int = 7
    larger_repeats: int = 3
    tokens: int = 16
    larger_tokens: int = 6
    # The official way takes many seconds per token on a CPU.
    official_repeats: int = 3
    official_budget: int = 5
    official_batch: int = 8
    official_context: int = 512
    mixed_batch: int = 8
    mixed_budget: int = 16
    arrivals: int = 24
    arrival_batch: int = 16
    adaptive_batches: tuple[int, ...] = (1, 4, 16)
    adaptive_groups: int = 4
    # The shortest text, in tokens.
    adaptive_tokens: int = 40
    # Lines of JSON with a "text".
    documents: Path = DOCUMENTS
    contexts: tuple[int, int] = (128, 2048)
    context_batch: int = 4
    max_thought_burst: int | None = None

    @property
    def thinking(self) -> dict[str, Any]:
        """Options of the thinking engines."""
        return {
            "max_thought_budget": max(self.mixed_budget, self.budget),
            "max_thought_burst": self.max_thought_burst,
            # One pass for each thought token, so that passes can be compared.
            "speculative_thoughts": 0,
        }


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    `ratios`: one for each repetition. `numerator` and `denominator`: the medians behind them, in
    `unit`, described by `names`. `limit` is the target of the median ratio: at most that much, or
    at least where `at_least`.
    """

    name: MeasureName
    model: str
    case: str
    names: tuple[str, str]
    unit: str
    numerator: float
    denominator: float
    ratios: list[float]
    limit: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    def figures(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self) | {"ratio": self.ratio, "is_met": self.is_met}


@dataclass(frozen=True)
class Pair:
    """A model on both engines, and the loads that suit its size."""

    name: str
    vocab_size: int
    ours: EngineHandle
    stock: EngineHandle
    repeats: int
    tokens: int
    limit: float
    progress: Progress = field(repr=False)

    def requests(
        self, number: int, budget: int, tokens: int, length: int = 16
    ) -> tuple[Request, ...]:
        return random_requests(
            number, length=length, vocab_size=self.vocab_size, budget=budget, tokens=tokens
        )

    def repetitions(self, what: str, at_most: int | None = None) -> Iterator[None]:
        repeats = min(self.repeats, at_most or self.repeats)
        for number in range(1, repeats + 1):
            self.progress(f"{self.name}: {what}, {number} of {repeats}")
            yield


def engine_arguments(folder: Path, device: str, **arguments: Any) -> dict[str, Any]:
    """The server's engine arguments, but with a KV cache that leaves memory for a second engine."""
    return {
        "model": str(folder),
        "dtype": "bfloat16" if device == "cuda" else "float32",
        "kv_cache_memory_bytes": GIB,
        # vLLM wants this share of the memory to be free, although the cache's size is given.
        "gpu_memory_utilization": 0.4,
        **arguments,
    }


@contextmanager
def pair(spec: EngineSpec, stock_spec: EngineSpec, **rest: Any) -> Iterator[Pair]:
    """Both engines, started at the same time."""
    rest["progress"](f"{rest['name']}: starting two engines")
    with launched_engine(spec) as ours, launched_engine(stock_spec) as stock:
        ours.wait_until_ready()
        stock.wait_until_ready()
        started = Pair(ours=ours, stock=stock, **rest)
        for engine in (ours, stock):
            engine.run(Load(started.requests(4, 0, 4)))
        yield started
        ours.begin_to_end()  # at the same time as the other one


def measure(settings: Settings, device: str, progress: Progress) -> Iterator[Measured]:
    """The lines of `settings.only`, one by one.

    Raises `CheckpointError` for a model that is no Quiet-STaR checkpoint, and `EngineEndedError`.
    """
    only = set(settings.only)
    with TemporaryDirectory(prefix="quietstar-benchmark-") as name:
        folder = Path(name)
        if only & {"pass", "official", "company", "arrival", "adaptive"}:
            with _checkpoint_pair(settings, folder, device, progress) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "company" in only:
                    yield mixed_batch_cost(both, settings)
                if "arrival" in only:
                    yield arrival_cost(both, settings)
                if "adaptive" in only:
                    yield from adaptive_cost(both, settings)
                if "official" in only:
                    yield official_gain(both, settings, device)
        if "speculative" in only:
            with _speculative_pair(settings, device, progress) as both:
                yield from speculative_gain(both, settings)
        if only & {"pass", "context"}:
            with _larger_pair(settings, folder, device, progress) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "context" in only:
                    yield context_cost(both, settings)


@contextmanager
def _checkpoint_pair(
    settings: Settings, folder: Path, device: str, progress: Progress
) -> Iterator[Pair]:
    arguments = engine_arguments(settings.checkpoint, device)
    base_model = write_base_model(folder / "base-model", settings.checkpoint)
    stock = EngineSpec(engine_arguments(base_model, device))
    ours = EngineSpec(arguments, settings.thinking)
    with _pair_of(settings, ours, stock, 0.8, progress) as both:
        yield both


@contextmanager
def _speculative_pair(settings: Settings, device: str, progress: Progress) -> Iterator[Pair]:
    """Two engines that think: one drafts thought tokens where it pays, the other never."""
    arguments = engine_arguments(settings.checkpoint, device)
    if device == "cuda":
        arguments["async_scheduling"] = False
    drafting = EngineSpec(arguments, settings.thinking | {"speculative_thoughts": "auto"})
    plain = EngineSpec(arguments, settings.thinking)
    with _pair_of(settings, drafting, plain, 1.0, progress) as both:
        yield both


@contextmanager
def _pair_of(
    settings: Settings, ours: EngineSpec, other: EngineSpec, limit: float, progress: Progress
) -> Iterator[Pair]:
    """Two engines with the checkpoint, or its base model."""
    with pair(
        ours,
        other,
        name=settings.checkpoint.name,
        vocab_size=read_json(settings.checkpoint / "config.json")["vocab_size"],
        repeats=settings.repeats,
        tokens=settings.tokens,
        limit=limit,
        progress=progress,
    ) as both:
        yield both


@contextmanager
def _larger_pair(
    settings: Settings, folder: Path, device: str, progress: Progress
) -> Iterator[Pair]:
    shape = settings.larger
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = write_model(folder / "larger", shape, dtype)
    longest = max(settings.contexts) + (settings.budget + 3) * settings.larger_tokens + 64
    arguments = engine_arguments(
        model, device, load_format="dummy", max_model_len=min(shape.max_context, longest)
    )
    with pair(
        EngineSpec(arguments, settings.thinking),
        EngineSpec(arguments),
        name=shape.name,
        vocab_size=shape.vocab_size,
        repeats=settings.larger_repeats,
        tokens=settings.larger_tokens,
        limit=1.0,
        progress=progress,
    ) as both:
        yield both


def pass_cost(both: Pair, settings: Settings) -> Iterator[Measured]:
    """A thought pass against a decode step of stock vLLM, by batch, and against stock vLLM's time
    for as many tokens: START and END are fed together with other tokens, so two of a thought's
    passes feed two tokens per request.
    """
    passes = settings.budget + 1
    for batch in settings.batches:
        thinking = Load(both.requests(batch, settings.budget, both.tokens))
        # Three times the visible tokens: enough steps for a good mean, and still quickly done.
        single, doubled = (Load(both.requests(n * batch, 0, 3 * both.tokens)) for n in (1, 2))
        ours, stock, as_many = [], [], []
        for _ in both.repetitions(f"a pass, batch {batch}"):
            ours.append(MS * per_token(both.ours.run(thinking)) / passes)
            stock.append(MS * per_token(both.stock.run(single)))
            twice = MS * per_token(both.stock.run(doubled))
            as_many.append(((passes - 2) * stock[-1] + 2 * twice) / passes)
        case = f"batch {batch}"
        names = ("thought pass", "stock step")
        yield _measured(both, "pass", case, names, (ours, stock), both.limit)
        names = ("thought pass", "stock, as many tokens")
        yield _measured(both, "pass", f"{case}, by tokens", names, (ours, as_many), 1.0)


def mixed_batch_cost(both: Pair, settings: Settings) -> Measured:
    """Requests without thoughts in a batch half of which thinks, against one where none does."""
    number, tokens = settings.mixed_batch, 3 * both.tokens
    measured = both.requests(number, 0, tokens)
    mixed = Load(measured, both.requests(number, settings.mixed_budget, tokens, 17))
    unmixed = Load(measured, both.requests(number, 0, 8 * tokens, 17))
    beside_thoughts, without = [], []
    for _ in both.repetitions("requests without thoughts in a mixed batch"):
        beside_thoughts.append(MS * per_token(both.ours.run(mixed)))
        without.append(MS * per_token(both.ours.run(unmixed)))
    return _measured(
        both,
        "company",
        f"{number} at budget 0 beside {number} at budget {settings.mixed_budget}",
        ("mixed batch", "all at budget 0"),
        (beside_thoughts, without),
        1.15,
    )


def arrival_cost(both: Pair, settings: Settings) -> Measured:
    """The first token of a request that joins a batch which thinks, against one which does not."""
    draw = random.Random(0)
    gaps = tuple(draw.uniform(0, 0.02) for _ in range(settings.arrivals))
    newcomers = both.requests(settings.arrivals, 0, 1, 24)
    tokens = 8 * both.tokens
    number, budget = settings.arrival_batch, settings.mixed_budget
    thinking = Load(newcomers, both.requests(number, budget, tokens), gaps)
    decoding = Load(newcomers, both.requests(number, 0, 4 * tokens), gaps)
    to_thoughts, to_decoding = [], []
    for _ in both.repetitions("a new request's first token"):
        to_thoughts.append(MS * to_first(both.ours.run(thinking)))
        to_decoding.append(MS * to_first(both.ours.run(decoding)))
    return _measured(
        both,
        "arrival",
        f"one more beside {number} at budget {budget}",
        ("beside thoughts", "beside budget 0"),
        (to_thoughts, to_decoding),
        1.3,
    )


def adaptive_cost(both: Pair, settings: Settings) -> Iterator[Measured]:
    """Given texts, thought about where it pays by the checkpoint's own default threshold, against
    as many tokens without thoughts; and what such requests cost their neighbours.

    Random tokens would not do: how often it pays to think depends on the text.
    """
    texts = _texts(settings)
    for batch in settings.adaptive_batches:
        thinking = _groups(texts, batch, settings.adaptive_groups)
        plain = [Load(_without_thoughts(load.requests)) for load in thinking]
        with_thoughts, without = [], []
        for _ in both.repetitions(f"thinking where it pays, batch {batch}"):
            with_thoughts.append(MS * fmean(per_token(both.ours.run(load)) for load in thinking))
            without.append(MS * fmean(per_token(both.ours.run(load)) for load in plain))
        case = f"batch {batch}, budget {texts[0].budget} over {texts[0].threshold:g} nats"
        names = ("thinking where it pays", "budget 0")
        yield _measured(both, "adaptive", case, names, (with_thoughts, without), 1.6)
    neighbours = texts[: settings.mixed_batch]
    measured = both.requests(settings.mixed_batch, 0, 8 * both.tokens)
    mixed, unmixed = (
        Load(measured, background) for background in (neighbours, _without_thoughts(neighbours))
    )
    beside_thoughts, beside_none = [], []
    for _ in both.repetitions("requests without thoughts beside such"):
        beside_thoughts.append(MS * per_token(both.ours.run(mixed)))
        beside_none.append(MS * per_token(both.ours.run(unmixed)))
    number = settings.mixed_batch
    case = f"{number} at budget 0 beside {number} that think where it pays"
    names = ("mixed batch", "all at budget 0")
    yield _measured(both, "adaptive", case, names, (beside_thoughts, beside_none), 1.1)


def speculative_gain(both: Pair, settings: Settings) -> Iterator[Measured]:
    """Given texts, thought about at every token, with drafts where these pay and without; then
    thought about where it pays, with drafts, against as many tokens without thoughts.
    """
    texts = _texts(settings)
    always = tuple(replace(text, threshold=0.0) for text in texts)
    names = ("with drafts", "without")
    for batch in settings.adaptive_batches:
        loads = _groups(always, batch, settings.adaptive_groups)
        for load in loads:
            both.ours.run(load)  # what the texts' thoughts say, and what pays
        drafted, plain = [], []
        for _ in both.repetitions(f"drafts of thought tokens, batch {batch}"):
            drafted.append(MS * fmean(per_token(both.ours.run(load)) for load in loads))
            plain.append(MS * fmean(per_token(both.stock.run(load)) for load in loads))
        case = f"batch {batch}, budget {texts[0].budget}"
        limit = _SPECULATIVE_LIMITS.get(batch, 1.03)
        yield _measured(both, "speculative", case, names, (drafted, plain), limit)
    thinking = _groups(texts, 1, settings.adaptive_groups)
    without = [Load(_without_thoughts(load.requests)) for load in thinking]
    above, below = [], []
    for _ in both.repetitions("drafts, thinking where it pays"):
        above.append(MS * fmean(per_token(both.ours.run(load)) for load in thinking))
        below.append(MS * fmean(per_token(both.ours.run(load)) for load in without))
    case = f"batch 1, budget {texts[0].budget} over {texts[0].threshold:g} nats"
    names = ("where it pays, with drafts", "budget 0")
    yield _measured(both, "speculative", case, names, (above, below), 1.4)


def _groups(texts: tuple[Request, ...], batch: int, number: int) -> list[Load]:
    return [Load(texts[first : first + batch]) for first in range(0, len(texts), batch)][:number]


def _texts(settings: Settings) -> tuple[Request, ...]:
    """The texts of `documents` that are long enough for a batch of them to stay full, to be thought
    about where it pays; over and over, as many as the measures need.
    """
    config = QuietStarConfig.from_checkpoint(settings.checkpoint)
    threshold = config.default_thought_threshold or config.effort_thresholds.medium
    budget = min(config.default_thought_budget, settings.mixed_budget)
    tokenizer = load_tokenizer(settings.checkpoint)
    lines = settings.documents.read_text(encoding="utf-8").splitlines()
    encoded = [tokenizer.encode(json.loads(line)["text"]) for line in lines]
    texts = [
        Request(tuple(ids[:2]), budget, len(ids) - 2, threshold, tuple(ids[2:]))
        for ids in encoded
        if len(ids) >= settings.adaptive_tokens
    ]
    if not texts:
        raise UnsupportedError(
            f"{settings.documents} has no text of {settings.adaptive_tokens} tokens or more"
        )
    needed = settings.adaptive_groups * max(settings.adaptive_batches)
    return tuple(itertools.islice(itertools.cycle(texts), needed))


def _without_thoughts(texts: Sequence[Request]) -> tuple[Request, ...]:
    """As many tokens, sampled, without thoughts."""
    return tuple(replace(text, budget=0, text=()) for text in texts)


def official_gain(both: Pair, settings: Settings, device: str) -> Measured:
    """The engine's visible tokens per second against those of the official way, same weights."""
    loop = OfficialLoop.from_checkpoint(
        settings.checkpoint,
        torch.device(device),
        torch.bfloat16 if device == "cuda" else torch.float32,
    )
    batch, budget, tokens = settings.official_batch, settings.official_budget, 2 * both.tokens
    # The context is `official_context` on average.
    prompts = both.requests(batch, budget, tokens, settings.official_context - tokens // 2)
    text_BT = torch.randint(
        4, both.vocab_size - 2, (batch, settings.official_context), device=device
    )
    ours, official = [], []
    for _ in both.repetitions("the official way", settings.official_repeats):
        ours.append(batch / per_token(both.ours.run(Load(prompts))))
        official.append(batch / _seconds(lambda: loop.generate(text_BT, 1, budget).cpu()))
    return _measured(
        both,
        "official",
        f"batch {batch}, budget {budget}, context {settings.official_context}",
        ("engine", "official way"),
        (ours, official),
        500,
        unit="tokens/s",
        at_least=True,
    )


def context_cost(both: Pair, settings: Settings) -> Measured:
    """How much longer a visible token takes with a longer context, against stock vLLM."""
    short, long = (Load(_repeated(both, settings, length)) for length in settings.contexts)
    short_stock, long_stock = (
        Load(_repeated(both, settings, length, thinking=False)) for length in settings.contexts
    )
    both.progress(f"{both.name}: prefilling the long context")
    both.ours.run(long)  # from here on the prompts are found in the prefix cache
    both.stock.run(long_stock)
    ours, stock = [], []
    for _ in both.repetitions("a longer context"):
        ours.append(per_token(both.ours.run(long)) / per_token(both.ours.run(short)))
        stock.append(per_token(both.stock.run(long_stock)) / per_token(both.stock.run(short_stock)))
    return _measured(
        both,
        "context",
        f"batch {settings.context_batch}, budget {settings.budget}, context "
        f"{settings.contexts[0]} → {settings.contexts[1]}",
        ("growth thinking", "growth of stock"),
        (ours, stock),
        1.1,
        unit="×",
    )


def _repeated(
    both: Pair, settings: Settings, length: int, thinking: bool = True
) -> tuple[Request, ...]:
    """The same prompt several times: it is prefilled once, then found in the prefix cache."""
    # One token more than whole blocks of the prefix cache: little is left to prefill.
    budget, tokens = (settings.budget, both.tokens) if thinking else (0, 3 * both.tokens)
    return both.requests(1, budget, tokens, length + 1) * settings.context_batch


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _measured(
    both: Pair,
    name: MeasureName,
    case: str,
    names: tuple[str, str],
    values: tuple[Sequence[float], Sequence[float]],
    limit: float,
    unit: str = "ms",
    at_least: bool = False,
) -> Measured:
    above, below = values
    return Measured(
        name=name,
        model=both.name,
        case=case,
        names=names,
        unit=unit,
        numerator=median(above),
        denominator=median(below),
        ratios=[a / b for a, b in zip(above, below, strict=True)],
        limit=limit,
        at_least=at_least,
    )
