"""A thought pass beside stock vLLM's step, by batch and by context, and the official way."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.engine.load import Load, Request, per_token
from benchmarks.engine.measures.measured import Measured
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import MS, Settings
from benchmarks.engine.official import OfficialLoop


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
        yield both.measured("pass", case, names, (ours, stock), both.limit)
        names = ("thought pass", "stock, as many tokens")
        yield both.measured("pass", f"{case}, by tokens", names, (ours, as_many), 1.0)


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
    return both.measured(
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
    return both.measured(
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
