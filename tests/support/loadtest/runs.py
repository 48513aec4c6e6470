"""Small load tests against the server whose delays are known."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.records import Cell, Record
from loadtest.sending.progress import NoWatcher, Snapshot
from loadtest.sending.runner import prepare, run_cells
from loadtest.traffic.arrivals import parse_load
from loadtest.traffic.budgets import parse_budgets
from loadtest.traffic.lengths import parse_lengths
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target

FIRST, GAP = 0.1, 0.02
"""Seconds to the first token and per pass of the server `delayed_url`."""
SLACK = 0.05
"""Delays are lower bounds: a busy machine can only add to them. To the request that it delays least
it adds less than this, in seconds."""


class Watcher(NoWatcher):
    """Keeps all snapshots."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def update(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


class InterruptAfter(NoWatcher):
    """Presses Ctrl-C when a cell has come so far."""

    def __init__(self, finished: int) -> None:
        self._finished = finished
        self._pressed = False

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.finished >= self._finished and not self._pressed:
            self._pressed = True
            self.press()

    def press(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def small_plan(
    url: str,
    loads: str | Sequence[str] = "closed:2",
    budgets: str = "0",
    requests: int | None = 10,
    seconds: float | None = None,
    tokens: str = "5",
    **more: Any,
) -> Plan:
    """Ten requests by default; `more` overrules fields of the plan."""
    loads = [loads] if isinstance(loads, str) else loads
    plan = Plan(
        target=Target(url),
        loads=tuple(parse_load(load) for load in loads),
        budgets=parse_budgets(budgets),
        prompts=PromptPlan(output_lengths=parse_lengths(tokens)),
        extent=Extent(seconds=seconds, requests=requests),
        workers=1,
    )
    return replace(plan, **more)


def run(plan: Plan) -> list[Cell]:
    return list(run_cells(prepare(plan), NoWatcher()))


def run_one(plan: Plan) -> Cell:
    (cell,) = run(plan)
    return cell


def measured(cell: Cell) -> list[Record]:
    return [record for record in cell.records if not record.warmup]


def prompts_file(folder: Path, *prompts: str) -> PromptPlan:
    """Exactly these prompts, for answers of five tokens."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return PromptPlan("jsonl", path, output_lengths=parse_lengths("5"))
