"""Records that are made up, so that every figure is known."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.records import Cell, ClientHealth, Failure, Record, Run
from loadtest.reporting.results import Recorder

HEALTHY = ClientHealth(
    workers=1,
    loop_lag_p99=0.001,
    loop_lag_max=0.002,
    cpu_share_max=0.2,
    late_sends=0,
    late_after=0.01,
)


def made_record(
    index: int,
    scheduled: float,
    budget: int | None = 0,
    *,
    first: float = 0.1,
    per_token: float = 0.01,
    tokens: int = 11,
    queued: float = 0.0,
    warmup: bool = False,
    correct: bool | None = None,
    failure: Failure | None = None,
    threshold: float | None = None,
) -> Record:
    """A request whose first token comes `first` after it was due, then one every `per_token`."""
    times = [scheduled + first + n * per_token for n in range(tokens)]
    return Record(
        index=index,
        budget=budget,
        threshold=threshold,
        warmup=warmup,
        scheduled=scheduled,
        sent=scheduled + queued,
        token_times=[] if failure else times,
        finished=times[-1],
        asked_tokens=tokens,
        prompt_tokens=16,
        thought_tokens=None if budget is None else budget * tokens,
        correct=correct,
        failure=failure,
        message="the server said no" if failure else None,
    )


def made_cell(
    records: Sequence[Record],
    window: tuple[float, float],
    budgets: Mapping[str, float] | None = None,
    load: str = "constant:10",
    repeat: int = 0,
    threshold: float | None = None,
) -> Cell:
    return Cell(
        budgets=dict(budgets or {"0": 1.0}),
        threshold=threshold,
        load=load,
        asked_rate=10.0 if not load.startswith("closed") else None,
        concurrency=None,
        repeat=repeat,
        window=window,
        records=list(records),
        client=HEALTHY,
    )


def made_run(cells: Sequence[Cell], label: str = "paper", levels: Sequence[str] = ()) -> Run:
    return Run(
        label=label,
        started_at="2026-01-02T03:04:05+00:00",
        url="http://127.0.0.1:8000",
        model="paper",
        server_version="1.0",
        command=["python", "-m", "loadtest", "--url", "http://127.0.0.1:8000"],
        seed=0,
        machine="2 CPU cores",
        prompts="made of paper",
        levels=list(levels),
        cells=list(cells),
    )


def written(run: Run, folder: Path) -> Path:
    """Write a run to a results folder, cell by cell."""
    recorder = Recorder(folder, run.model_copy(update={"cells": []}))
    for cell in run.cells:
        recorder.begin(cell.model_copy(update={"records": [], "client": None, "partial": True}))
        for record in cell.records:
            recorder.record(record)
        recorder.end(cell)
    recorder.close()
    return folder


def as_version_1(folder: Path) -> Path:
    """Take from a results folder what its first schema did not have."""
    content = json.loads((folder / "run.json").read_text())
    content["schema_version"] = 1
    for cell in content["cells"]:
        del cell["threshold"]
    (folder / "run.json").write_text(json.dumps(content))
    return folder


PASS_SECONDS = 0.004
"""Of the made-up server, for each pass of its model."""
RIGHT = {0: 0.25, 2: 0.3, 4: 0.45, 8: 0.75, 16: 0.99}


def sweep(
    budgets: Sequence[int] = (0, 2, 4, 8, 16),
    loads: Sequence[str] = ("closed:4", "closed:16"),
    repeats: int = 3,
    requests: int = 80,
    seed: int = 0,
) -> list[Cell]:
    """Cells of a server whose time per visible token is (b + 1) passes, with some noise."""
    rng = random.Random(seed)
    cells = []
    for load in loads:
        users = int(load.partition(":")[2])
        for budget in budgets:
            pass_seconds = PASS_SECONDS * (1 + users / 16)
            for repeat in range(repeats):
                records = []
                free = [rng.random() for _ in range(users)]
                for index in range(requests):
                    start = min(free)
                    per_token = pass_seconds * (budget + 1) * rng.lognormvariate(0, 0.15)
                    record = made_record(
                        index,
                        start,
                        budget,
                        first=0.02 * rng.lognormvariate(0, 0.5) + per_token,
                        per_token=per_token,
                        tokens=rng.randint(16, 32),
                        correct=rng.random() < RIGHT.get(budget, 0.5),
                        failure=Failure.TIMEOUT if rng.random() < 0.01 else None,
                    )
                    free[free.index(start)] = record.finished or start
                    records.append(record)
                window = (0.0, max(r.finished or 0.0 for r in records))
                cells.append(made_cell(records, window, {str(budget): 1.0}, load, repeat))
    return cells


def gated(budget: int = 8, requests: int = 60, repeats: int = 2) -> list[Cell]:
    """Cells of one budget and three thresholds beside one of budget 0: at 0.1 nats every fourth
    token is thought about, which is as good as thinking always; at 0.5 none is."""
    thinks_at = {0.0: 1.0, 0.1: 0.25, 0.5: 0.0}
    cells = []
    for repeat in range(repeats):
        for threshold, share in ((None, 0.0), *thinks_at.items()):
            shown = 0 if threshold is None else budget
            passes = 1 + share * (budget + (1 if threshold else 0))
            records = [
                made_record(
                    index,
                    index / 10,
                    shown,
                    per_token=PASS_SECONDS * passes,
                    tokens=16,
                    threshold=threshold,
                    correct=index % 20 > (0 if share else 15),
                ).model_copy(update={"thought_tokens": round(share * 16 * shown)})
                for index in range(requests)
            ]
            window = (0.0, requests / 10)
            mix = {str(shown): 1.0}
            cells.append(made_cell(records, window, mix, repeat=repeat, threshold=threshold))
    return cells


def mixed(requests: int = 300, seed: int = 0) -> Cell:
    """A cell of three budgets at once."""
    rng = random.Random(seed)
    mix = {"0": 0.5, "4": 0.3, "16": 0.2}
    records = [
        made_record(
            index,
            index / 10,
            budget,
            per_token=PASS_SECONDS * (budget + 1) * rng.lognormvariate(0, 0.15),
        )
        for index in range(requests)
        for budget in [int(rng.choices(list(mix), list(mix.values()))[0])]
    ]
    return made_cell(records, (0.0, requests / 10), mix, "poisson:10")
