"""The table: what thinking costs, as ratios of two things measured in turn in one run.

The machine's noise hits both sides of a ratio alike: they are taken one after the other, several
times, and the median of the repetitions' ratios counts.

| measure  | numerator | denominator |
|---|---|---|
| pass     | a thought pass: time per visible token at budget 8, / 9 | a step of stock vLLM |
|          | the same | what stock vLLM takes for as many tokens as are fed in a thought pass |
| official | visible tokens per second | those of a loop that reads and thinks everything anew |
| company  | time per visible token beside as many thinkers | the same beside speakers |
| arrival  | time to the first token of who comes to 16 thinkers | the same to 16 speakers |
| context  | growth of the time per visible token with the context | that of stock vLLM |
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from benchmarks.engine.load import Request, Load, random_requests, per_token, to_first
from benchmarks.engine.official import OfficialLoop
from benchmarks.engine.shapes import LARGER, Shape, write_model, write_base_model
from benchmarks.engine.engine_handle import EngineHandle, side
from benchmarks.engine.spec import EngineSpec
from quietstar_infer.config import read_json

MS = 1e3
GIB = 1 << 30
Name = Literal["pass", "official", "company", "arrival", "context"]
NAMES: tuple[Name, ...] = ("pass", "official", "company", "arrival", "context")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often. `repeats` are those of the checkpoint's ratios, of the
    larger model's there are `larger_repeats`.
    """

    checkpoint: Path
    larger: Shape = LARGER
    only: tuple[Name, ...] = NAMES
    batches: tuple[int, ...] = (1, 4, 16, 64)
    budget: int = 8
    repeats: int = 7
    larger_repeats: int = 3
    tokens: int = 16
    larger_tokens: int = 6
    # A token takes the official way many seconds on a CPU.
    official_repeats: int = 3
    official_budget: int = 5
    official_batch: int = 8
    official_context: int = 512
    company: int = 8
    company_budget: int = 16
    arrivals: int = 24
    crowd: int = 16
    contexts: tuple[int, int] = (128, 2048)
    context_batch: int = 4
    max_thought_burst: int | None = None

    @property
    def thinking(self) -> dict[str, Any]:
        """Options of the engines that think."""
        return {
            "max_thought_budget": max(self.company_budget, self.budget),
            "max_thought_burst": self.max_thought_burst,
        }


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    `ratios`: one for each repetition. `numerator` and `denominator`: the medians behind them, in
    `unit`; `names` say what they are. `limit` bounds the median ratio from above, or from below
    where `at_least`.
    """

    name: Name
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
        """All of it in plain types."""
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
    report: Report = field(repr=False)

    def requests(self, number: int, budget: int, tokens: int, length: int = 16) -> tuple[Request, ...]:
        return random_requests(number, length=length, vocab_size=self.vocab_size, budget=budget, tokens=tokens)

    def repetitions(self, what: str, at_most: int | None = None) -> Iterator[None]:
        repeats = min(self.repeats, at_most or self.repeats)
        for number in range(1, repeats + 1):
            self.report(f"{self.name}: {what}, {number} of {repeats}")
            yield


def engine_arguments(folder: Path, device: str, **arguments: Any) -> dict[str, Any]:
    """As the server starts an engine, but with a KV cache that leaves room for a second one."""
    return {
        "model": str(folder),
        "dtype": "bfloat16" if device == "cuda" else "float32",
        "kv_cache_memory_bytes": GIB,
        # What vLLM asks to be free at the start, although the cache's size is given.
        "gpu_memory_utilization": 0.4,
        **arguments,
    }


@contextmanager
def pair(spec: EngineSpec, stock_spec: EngineSpec, **rest: Any) -> Iterator[Pair]:
    """Both engines, started at the same time."""
    rest["report"](f"{rest['name']}: starting two engines")
    with side(spec) as ours, side(stock_spec) as stock:
        ours.start()
        stock.start()
        started = Pair(ours=ours, stock=stock, **rest)
        for engine in (ours, stock):
            engine.run(Load(started.random_requests(4, 0, 4)))
        yield started


def measure(settings: Settings, device: str, report: Report) -> Iterator[Measured]:
    """All lines that are asked for, as they come. Raises `CheckpointError` and `EngineEndedError`."""
    only = set(settings.only)
    with TemporaryDirectory(prefix="quietstar-benchmark-") as name:
        folder = Path(name)
        if only & {"pass", "official", "company", "arrival"}:
            with _checkpoint_pair(settings, folder, device, report) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "company" in only:
                    yield company_cost(both, settings)
                if "arrival" in only:
                    yield arrival_cost(both, settings)
                if "official" in only:
                    yield official_gain(both, settings, device)
        if only & {"pass", "context"}:
            with _larger_pair(settings, folder, device, report) as both:
                if "pass" in only:
                    yield from pass_cost(both, settings)
                if "context" in only:
                    yield context_cost(both, settings)


@contextmanager
def _checkpoint_pair(
    settings: Settings, folder: Path, device: str, report: Report
) -> Iterator[Pair]:
    checkpoint = settings.checkpoint
    trunk = write_base_model(folder / "trunk", checkpoint)
    with pair(
        EngineSpec(engine_arguments(checkpoint, device), settings.thinking),
        EngineSpec(engine_arguments(trunk, device)),
        name=checkpoint.name,
        vocab_size=read_json(checkpoint / "config.json")["vocab_size"],
        repeats=settings.repeats,
        tokens=settings.tokens,
        limit=0.8,
        report=report,
    ) as both:
        yield both


@contextmanager
def _larger_pair(settings: Settings, folder: Path, device: str, report: Report) -> Iterator[Pair]:
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
        report=report,
    ) as both:
        yield both


def pass_cost(both: Pair, settings: Settings) -> Iterator[Measured]:
    """A thought pass against a decode step of stock vLLM, by batch; and against what stock vLLM
    takes for as many tokens: START and END ride along, so two of a thought's passes feed two per
    row.
    """
    passes = settings.budget + 1
    for batch in settings.batches:
        thinking = Load(both.requests(batch, settings.budget, both.tokens))
        # As many intervals as three thoughts have passes: enough, and not a third of the time.
        plain, doubled = (Load(both.requests(n * batch, 0, 3 * both.tokens)) for n in (1, 2))
        ours, stock, as_many = [], [], []
        for _ in both.repetitions(f"a pass, batch {batch}"):
            ours.append(MS * per_token(both.ours.run(thinking)) / passes)
            stock.append(MS * per_token(both.stock.run(plain)))
            twice = MS * per_token(both.stock.run(doubled))
            as_many.append(((passes - 2) * stock[-1] + 2 * twice) / passes)
        case = f"batch {batch}"
        names = ("thought pass", "stock step")
        yield _measured(both, "pass", case, names, (ours, stock), both.limit)
        names = ("thought pass", "stock, as many tokens")
        yield _measured(both, "pass", f"{case}, by tokens", names, (ours, as_many), 1.0)


def company_cost(both: Pair, settings: Settings) -> Measured:
    """Speakers beside thinkers, against speakers beside speakers."""
    number, tokens = settings.company, 3 * both.tokens
    speakers = both.requests(number, 0, tokens)
    beside_thinkers = Load(speakers, both.requests(number, settings.company_budget, tokens, 17))
    beside_speakers = Load(speakers, both.requests(number, 0, 8 * tokens, 17))
    thinkers, plain = [], []
    for _ in both.repetitions("speakers among thinkers"):
        thinkers.append(MS * per_token(both.ours.run(beside_thinkers)))
        plain.append(MS * per_token(both.ours.run(beside_speakers)))
    return _measured(
        both,
        "company",
        f"{number} speakers beside {number} at budget {settings.company_budget}",
        ("beside thinkers", "beside speakers"),
        (thinkers, plain),
        1.15,
    )


def arrival_cost(both: Pair, settings: Settings) -> Measured:
    """The first token of who comes to a crowd of thinkers, against a crowd of speakers."""
    draw = random.Random(0)
    gaps = tuple(draw.uniform(0, 0.02) for _ in range(settings.arrivals))
    newcomers = both.requests(settings.arrivals, 0, 1, 24)
    tokens = 8 * both.tokens
    to_thinkers = Load(newcomers, both.requests(settings.crowd, settings.company_budget, tokens), gaps)
    to_speakers = Load(newcomers, both.requests(settings.crowd, 0, 4 * tokens), gaps)
    thinkers, speakers = [], []
    for _ in both.repetitions("a newcomer's first token"):
        thinkers.append(MS * to_first(both.ours.run(to_thinkers)))
        speakers.append(MS * to_first(both.ours.run(to_speakers)))
    return _measured(
        both,
        "arrival",
        f"one more beside {settings.crowd} at budget {settings.company_budget}",
        ("to thinkers", "to speakers"),
        (thinkers, speakers),
        1.3,
    )


def official_gain(both: Pair, settings: Settings, device: str) -> Measured:
    """The engine's visible tokens per second against the official way's, on the same weights."""
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
    """How a longer context makes a visible token dearer, against the same without thoughts."""
    short, long = (Load(_repeated(both, settings, length)) for length in settings.contexts)
    short_plain, long_plain = (
        Load(_repeated(both, settings, length, plain=True)) for length in settings.contexts
    )
    both.report(f"{both.name}: reading the long context")
    both.ours.run(long)  # from here on the prompts are found in the prefix cache
    both.stock.run(long_plain)
    ours, stock = [], []
    for _ in both.repetitions("a longer context"):
        ours.append(per_token(both.ours.run(long)) / per_token(both.ours.run(short)))
        stock.append(per_token(both.stock.run(long_plain)) / per_token(both.stock.run(short_plain)))
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


def _repeated(both: Pair, settings: Settings, length: int, plain: bool = False) -> tuple[Request, ...]:
    """The same prompt several times: it is read once, and attended to by each."""
    # One token more than whole blocks of the prefix cache: little is left to read.
    budget, tokens = (0, 3 * both.tokens) if plain else (settings.budget, both.tokens)
    return both.requests(1, budget, tokens, length + 1) * settings.context_batch


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _measured(
    both: Pair,
    name: Name,
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
