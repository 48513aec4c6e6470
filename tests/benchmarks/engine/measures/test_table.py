"""The table, at a size at which its figures mean nothing: that it measures what it promises."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.measures import pairs
from benchmarks.engine.measures.pairs import Pair
from benchmarks.engine.measures.settings import NAMES, Settings
from benchmarks.engine.measures.table import measure
from benchmarks.engine.shapes import TINY
from benchmarks.engine.spec import EngineSpec
from tests.support.benchmarking import MEASURED, ignore

pytestmark = pytest.mark.slow


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
        mixed_batch=2,
        mixed_budget=3,
        arrivals=2,
        arrival_batch=2,
        adaptive_batches=(1, 2),
        adaptive_tokens=4,
        warm_up_tokens=1,
        drafted_documents=1,
        answers=1,
        larger_drafted_batches=(1,),
        contexts=(16, 40),
        context_batch=2,
    )


def test_every_measure_has_its_lines(
    both: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[EngineSpec] = []

    @contextmanager
    def instead(spec: EngineSpec, stock: EngineSpec, **rest: Any) -> Iterator[Pair]:
        started.extend([spec, stock])
        yield replace(both, name=rest["name"], limit=rest["limit"])

    monkeypatch.setattr(pairs, "pair", instead)
    table = list(measure(settings, "cpu", ignore))
    assert [m.name for m in table] == [
        *("pass", "pass", "company", "arrival", "adaptive", "adaptive", "adaptive", "official"),
        *("speculative",) * 9,
        *("pass", "pass", "context"),
    ]
    assert {m.name for m in table} == set(NAMES)
    assert [m.limit for m in table] == [
        *(0.8, 1.0, 1.1, 1.3, 1.6, 1.6, 1.1, 500),
        *(1.03, 0.6, 0.6, 1.03),  # after the start; batch 1, greedy, too; batch 2
        *(1.4, 1.0, 2.5, 1.0),  # documents and answers, by budget 0 and by thinking everywhere
        1.03,
        *(1.0, 1.0, 1.1),
    ]
    for measured in table:
        assert len(measured.ratios) == 1
        assert measured.ratio > 0
        assert measured.numerator > 0
        assert measured.denominator > 0
    # Ours and stock vLLM, of the checkpoint and of the larger model, as a server starts them.
    assert [spec.thinking is None for spec in started] == [
        *(False, True),
        *(False, False),
        *(False, False),
        *(False, True),
    ]
    assert started[6].arguments == started[7].arguments
    drafts = [spec.thinking["speculative_thoughts"] for spec in started if spec.thinking]
    assert drafts == [0, "auto", 0, "auto", 0, 0]
    assert "enforce_eager" not in started[0].arguments


def test_only_the_engines_of_the_selected_measures_are_started(
    both: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    @contextmanager
    def instead(spec: EngineSpec, stock: EngineSpec, **rest: Any) -> Iterator[Pair]:
        names.append(rest["name"])
        yield both

    monkeypatch.setattr(pairs, "pair", instead)
    (measured,) = measure(replace(settings, only=("arrival",)), "cpu", ignore)
    assert measured.name == "arrival"
    assert names == [settings.checkpoint.name]


def test_the_median_ratio_is_held_against_the_target() -> None:
    assert MEASURED.ratio == 0.75
    assert MEASURED.is_met
    assert not replace(MEASURED, limit=0.7).is_met
    assert not replace(MEASURED, at_least=True).is_met
    assert replace(MEASURED, at_least=True, limit=0.7).is_met
