"""The benchmark at a size at which its figures mean nothing: that it measures what it says."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from quietstar_infer.benchmark import cli, measures
from quietstar_infer.benchmark import profile as profile_module
from quietstar_infer.benchmark.gpu import GpuSettings, measure_passes, passes_table
from quietstar_infer.benchmark.load import Load, Times, asks, per_token, to_first
from quietstar_infer.benchmark.machine import describe_machine
from quietstar_infer.benchmark.measures import (
    NAMES,
    Measured,
    Pair,
    Settings,
    engine_arguments,
    measure,
    pair,
)
from quietstar_infer.benchmark.official import OfficialLoop, likeliest
from quietstar_infer.benchmark.profile import Profile, ProfileSettings, profile_table
from quietstar_infer.benchmark.report import measures_table, write_json, write_plot
from quietstar_infer.benchmark.shapes import (
    LARGER,
    MISTRAL_7B,
    TINY,
    Shape,
    write_model,
    write_trunk,
)
from quietstar_infer.benchmark.side import Side, SideError, side
from quietstar_infer.benchmark.spec import EngineSpec
from quietstar_infer.benchmark.timers import PARTS, STOCK, THINKING, TRUNK, Timers
from quietstar_infer.checkpoint import check_checkpoint, load_tensors, thought_tensor_shapes
from quietstar_infer.reference import ReferenceDecoder
from tests.support.checkpoints import GOLDEN, VOCAB_SIZE, write_random_checkpoint

MEASURED = Measured(
    "pass", "m", "batch 1", ("thought pass", "stock step"), "ms", 3.0, 4.0, [0.7, 0.75, 0.9], 0.8
)


def quiet(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("benchmark"), "mistral")


@pytest.fixture(scope="module")
def both(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two real engines for all tests here: to start them takes most of the time."""
    trunk = write_trunk(tmp_path_factory.mktemp("trunk") / "trunk", checkpoint)
    thinker, stock = (
        engine_arguments(
            folder, "cpu", kv_cache_memory_bytes=64 << 20, enforce_eager=True, max_num_seqs=16
        )
        for folder in (checkpoint, trunk)
    )
    with pair(
        EngineSpec(thinker, {"max_thought_budget": 4}),
        EngineSpec(stock),
        name="tiny",
        vocab_size=VOCAB_SIZE,
        repeats=1,
        tokens=3,
        limit=0.8,
        report=quiet,
    ) as started:
        yield started


@pytest.fixture
def settings(checkpoint: Path) -> Settings:
    return Settings(
        checkpoint,
        larger=TINY,
        batches=(2,),
        budget=2,
        repeats=1,
        larger_repeats=1,
        tokens=3,
        official_budget=1,
        official_batch=2,
        official_context=12,
        company=2,
        company_budget=3,
        arrivals=2,
        crowd=2,
        contexts=(16, 40),
        context_batch=2,
    )


def test_the_table(both: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[EngineSpec] = []

    @contextmanager
    def instead(spec: EngineSpec, stock: EngineSpec, **rest: Any) -> Iterator[Pair]:
        started.extend([spec, stock])
        yield replace(both, name=rest["name"], limit=rest["limit"])

    monkeypatch.setattr(measures, "pair", instead)
    table = list(measure(settings, "cpu", quiet))
    assert [m.name for m in table] == [
        *("pass", "pass", "company", "arrival", "official"),
        *("pass", "pass", "context"),
    ]
    assert {m.name for m in table} == set(NAMES)
    assert [m.limit for m in table] == [0.8, 1.0, 1.15, 1.3, 500, 1.0, 1.0, 1.1]
    for measured in table:
        assert len(measured.ratios) == 1
        assert measured.ratio > 0
        assert measured.numerator > 0
        assert measured.denominator > 0
    # Ours and stock vLLM, of the checkpoint and of the larger model, as a server starts them.
    assert [spec.thinking is None for spec in started] == [False, True, False, True]
    assert started[2].arguments == started[3].arguments
    assert "enforce_eager" not in started[0].arguments


def test_only_what_is_asked_for_is_started(
    both: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    @contextmanager
    def instead(spec: EngineSpec, stock: EngineSpec, **rest: Any) -> Iterator[Pair]:
        names.append(rest["name"])
        yield both

    monkeypatch.setattr(measures, "pair", instead)
    (measured,) = measure(replace(settings, only=("arrival",)), "cpu", quiet)
    assert measured.name == "arrival"
    assert names == [settings.checkpoint.name]


def test_a_halted_engine_does_nothing(both: Pair) -> None:
    """Neither does its front end nor any process that it has started."""
    both.stock.run(Load(both.asks(1, 0, 2)))
    for engine in (both.ours, both.stock):
        states = [state for group, state in processes() if group == engine._process.pid]
        assert len(states) > 2
        assert set(states) == {"T"}


def processes() -> Iterator[tuple[int, str]]:
    """Process group and state of every process."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, _, group, *_ = file.read_text().rpartition(")")[2].split()
            yield int(group), state


def test_milliseconds_per_pass(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def instead(spec: EngineSpec) -> Iterator[Side]:
        running = both.stock if spec.thinking is None else both.ours
        monkeypatch.setattr(running, "start", lambda: None)
        yield running

    monkeypatch.setattr("quietstar_infer.benchmark.gpu.side", instead)
    # So many tokens that not even a busy front end gets all of them at once, which takes no time.
    asked = GpuSettings(TINY, batches=(1, 2), budgets=(0, 2), repeats=1, tokens=16, prompt=8)
    times = list(measure_passes(asked, "cpu", quiet))
    assert [(t.engine, t.batch, t.budget) for t in times] == [
        *(("stock", 1, 0), ("stock", 2, 0)),
        *(("thinking", 1, 0), ("thinking", 1, 2), ("thinking", 2, 0), ("thinking", 2, 2)),
    ]
    assert times[0].to_stock == 1
    for each in times:
        assert (each.of_bandwidth is not None) == (each.batch == 1)
        seconds_per_token = 1e-3 * each.ms * (each.budget + 1)
        assert each.tokens_per_second == pytest.approx(each.batch / seconds_per_token)
    assert len(passes_table(times).splitlines()) == 2 + len(times)


def test_the_profile(both: Pair, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thinking engine alone is timed here: what is timed in stock vLLM is timed in it, too."""
    started: list[EngineSpec] = []

    @contextmanager
    def instead(spec: EngineSpec, module: str = "") -> Iterator[Side]:
        started.append(spec)
        if not module:
            monkeypatch.setattr(both.ours, "start", lambda: None)
            yield both.ours
            return
        arguments = spec.arguments | {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}
        with side(replace(spec, arguments=arguments), module) as timed:
            yield timed

    monkeypatch.setattr("quietstar_infer.benchmark.profile.side", instead)
    asked = ProfileSettings(checkpoint, TINY, batches=(2,), budget=2, repeats=1, tokens=3)
    model = next(iter(profile_module.models(asked, checkpoint.parent, "cpu")))
    (profiled,) = profile_module.profile_engine(asked, model, "thinking", 2, quiet)
    assert set(STOCK.items()) <= set(THINKING.items())
    assert all(ms > 0 for ms in profiled.parts.values())
    assert [spec.environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") for spec in started] == [
        "0",
        None,
    ]


def test_what_the_processes_cost_is_without_the_front_end() -> None:
    parts = dict.fromkeys(PARTS, 0.0) | {TRUNK: 2.0, "output processing": 1.0}
    made = Profile("m", "stock", 1, parts, served=5.0)
    assert made.processes == 3.0
    assert "| a server's pass             |              5.00 |" in profile_table([made])


def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", TINY, torch.float32)
    arguments = {"model": str(model), "pipeline_parallel_size": 2}
    spec = EngineSpec(arguments, {"max_thought_budget": 2})
    with side(spec) as broken, pytest.raises(SideError, match=r"UnsupportedError: .* parallelism"):
        broken.start()


# --- the official way


@pytest.mark.parametrize("budget", [1, 5])
def test_the_official_way_is_the_reference_at_every_position(budget: int) -> None:
    folder = GOLDEN / "engine_greedy_n8" / "checkpoint"
    loop = OfficialLoop.from_checkpoint(folder, torch.device("cpu"), torch.float32)
    passes: list[tuple[int, ...]] = []
    loop.trunk.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["inputs_embeds"].shape)),
        with_kwargs=True,
    )
    decoder = ReferenceDecoder.from_checkpoint(folder)
    text_BT = torch.tensor([[1, 5, 9, 33, 20, 11], [1, 7, 7, 40, 30, 22]])
    logits_BTV = loop.predict(text_BT, budget, likeliest)
    # The official n_ahead: text, START, thought tokens, END, each at all positions.
    assert passes == [(2, 6, decoder.model.config.hidden_size)] * (budget + 3)
    for text, logits_TV in zip(text_BT.tolist(), logits_BTV, strict=True):
        for position, logits_V in enumerate(logits_TV):
            expected = decoder.predict(text[: position + 1], budget).logits_V
            torch.testing.assert_close(logits_V, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["greedy_n4", "greedy_n8"])
def test_the_official_way_repeats_recorded_generations(name: str) -> None:
    folder = GOLDEN / name
    budget = json.loads((folder / "case.json").read_text())["n_ahead"] - 3
    loop = OfficialLoop.from_checkpoint(folder / "checkpoint", torch.device("cpu"), torch.float32)
    generation = json.loads((folder / "generation.json").read_text())["generations"][0]
    text = list(generation["input_ids"])
    for expected in generation["new_tokens"][:8]:
        logits_BTV = loop.predict(torch.tensor([text]), budget, likeliest)
        text.append(int(logits_BTV[0, -1].argmax()))
        assert text[-1] == expected


def test_the_official_way_samples(checkpoint: Path) -> None:
    loop = OfficialLoop.from_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    text_BT = torch.tensor([[1, 5, 9]])
    said = {tuple(loop.generate(text_BT, 2, budget=1)[0].tolist()) for _ in range(20)}
    assert {len(text) for text in said} == {5}
    assert len(said) > 1


# --- models


@pytest.mark.parametrize(
    ("shape", "parameters"), [(LARGER, 213_158_912), (MISTRAL_7B, 7_110_668_288)]
)
def test_weights_that_a_pass_reads(shape: Shape, parameters: int) -> None:
    assert shape.pass_parameters == parameters


def test_a_trunk_is_the_checkpoint_without_what_thinks(checkpoint: Path, tmp_path: Path) -> None:
    trunk = load_tensors(write_trunk(tmp_path / "trunk", checkpoint))
    thinker = load_tensors(checkpoint)
    assert set(thinker) - set(trunk) == set(thought_tensor_shapes(64))
    assert all(torch.equal(trunk[name], thinker[name]) for name in trunk)


def test_a_random_model_passes_for_a_checkpoint(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", replace(TINY, vocab_size=99), torch.bfloat16)
    check_checkpoint(folder)


# --- figures


def test_times_of_requests() -> None:
    times = [Times(sent=1.0, first=2.0, last=5.0, tokens=4), Times(1.0, 4.0, 5.0, 2)]
    assert per_token(times) == 1.0
    assert to_first(times) == 2.0


def test_prompts_are_the_same_at_every_call() -> None:
    first, again = (
        asks(3, length=5, vocab_size=60, budget=2, tokens=4),
        asks(3, length=5, vocab_size=60, budget=2, tokens=4),
    )
    assert first == again
    assert len({ask.prompt for ask in first}) == 3
    assert Load(first).company == ()


def test_the_median_counts_and_the_limit_has_a_side() -> None:
    assert MEASURED.ratio == 0.75
    assert MEASURED.is_met
    assert not replace(MEASURED, limit=0.7).is_met
    assert not replace(MEASURED, at_least=True).is_met
    assert replace(MEASURED, at_least=True, limit=0.7).is_met


def test_table_json_and_plot(tmp_path: Path) -> None:
    missed = replace(MEASURED, name="official", at_least=True, limit=500)
    lines = measures_table([MEASURED, missed]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.search(r"\| thought pass 3 ms \| stock step 4 ms \|  0.75 \| 0.7 – 0.9 \|", lines[2])
    assert lines[2].endswith("|    ≤ 0.8 |     yes |")
    assert lines[3].endswith("|    ≥ 500 |      no |")

    machine = describe_machine()
    write_json(tmp_path / "figures.json", machine, "table", [MEASURED.figures(), missed.figures()])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["schema"] == 1
    assert figures["benchmark"] == "table"
    assert figures["machine"]["cores"] == machine.cores
    assert figures["results"][0]["ratios"] == [0.7, 0.75, 0.9]
    assert (figures["results"][0]["ratio"], figures["results"][0]["is_met"]) == (0.75, True)

    write_plot(tmp_path / "plot.svg", machine, [MEASURED, missed])
    assert "official" in (tmp_path / "plot.svg").read_text()


def test_time_counts_where_it_is_spent() -> None:
    class Step:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    ticks = iter(range(100))
    timers = Timers(clock=lambda: float(next(ticks)))
    Step.outer = timers._timed("outer", "a", Step.outer)  # type: ignore[method-assign]
    Step.inner = timers._timed("inner", "b", Step.inner)  # type: ignore[method-assign]
    assert Step().outer() == 2
    # The clock is read four times: outer begins, inner begins, inner ends, outer ends.
    assert timers.seconds == {"a": 2.0, "b": 1.0}
    timers.reset()
    assert timers.seconds == {}


def test_a_function_that_vllm_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_such_method"):
        Timers().install({"quietstar_infer.benchmark.timers:Timers.no_such_method": TRUNK})


# --- command line


def test_a_wrong_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["table", "--model", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["table", "--repeats", "0"], ["gpu", "--budgets", "-1"], ["fast"]]
)
def test_a_wrong_option_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
