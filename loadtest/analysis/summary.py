"""A run's cells, sorted into rows: a budget, or a part of a mix, with one threshold under one load,
with repeats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from loadtest.analysis.failures import reasons
from loadtest.analysis.figures import ALL, Figures, figures, has_budget, measured
from loadtest.analysis.intervals import Repeated, Share
from loadtest.analysis.levels import Level, parse_level
from loadtest.analysis.named import NAMED
from loadtest.analysis.pareto import COSTS, REASONING_COSTS, Cost, Front, front
from loadtest.analysis.price import Price, cell_reasons, price_of_a_thought, price_of_reasoning
from loadtest.analysis.settings import Setting, mix_name, setting_name
from loadtest.analysis.steps import Step, held_sentence, steps_of
from loadtest.records import Cell, Record, Run, threshold_suffix


@dataclass(frozen=True)
class Row:
    """One row: `mix` is the cells' budget or mix, `budget` the part of it that the row shows."""

    mix: str
    threshold: float | None
    """The cells'; None = none was sent."""
    load: str
    budget: str
    cells: tuple[Cell, ...]
    repeats: tuple[Figures, ...]
    rate: float | None = None
    """Requests per second, of a row that is one step of a ramp."""
    url: str | None = None
    """Of a row that is one of several servers."""

    @property
    def is_part(self) -> bool:
        """Whether this is one budget of a mix."""
        return self.budget != ALL and self.budget != self.mix

    @property
    def setting(self) -> Setting:
        return Setting(self.budget, self.threshold, self.cells[0].budget_field)

    @property
    def name(self) -> str:
        """`8`, `8, threshold 0.1`, `all of 0:0.5,8:0.5` or `8 of 0:0.5,8:0.5`."""
        budget = self.budget if self.budget == self.mix else f"{self.budget} of {self.mix}"
        return budget + threshold_suffix(self.threshold)

    def figure(self, name: str) -> Repeated | None:
        """A named figure over the repeats that have it; None where none has."""
        values = [NAMED[name].read(repeat) for repeat in self.repeats if self._was_asked(repeat)]
        found = tuple(value for value in values if value is not None)
        return Repeated(found, len(values) - len(found)) if found else None

    def _was_asked(self, repeat: Figures) -> bool:
        """Whether any request of a mix had this budget."""
        return not self.is_part or repeat.requests > 0

    @property
    def left_out(self) -> str | None:
        """Why headlines cannot use this row, in words: not every repeat that was measured to its
        end has an answer. None = they can."""
        whole = [
            repeat
            for cell, repeat in zip(self.cells, self.repeats, strict=True)
            if not cell.partial and self._was_asked(repeat)
        ]
        finished = sum(repeat.succeeded > 0 for repeat in whole)
        if not whole:
            return "no repeat was measured to its end"
        if finished < len(whole):
            return f"requests succeeded in {finished} of {len(whole)} repeats only"
        return None

    @property
    def accuracy(self) -> Share | None:
        """Of all repeats together."""
        shares = [repeat.accuracy for repeat in self.repeats if repeat.accuracy]
        if not shares:
            return None
        return Share(sum(share.hits for share in shares), sum(share.count for share in shares))

    @property
    def failures(self) -> dict[str, int]:
        """By kind, of all repeats together."""
        total: dict[str, int] = {}
        for repeat in self.repeats:
            for kind, count in repeat.failures.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def successes(self) -> list[Record]:
        """The measured requests of this row that succeeded, of all repeats."""
        return [
            record
            for cell in self.cells
            for record in measured(cell.records)
            if record.failure is None and has_budget(cell, record, self.budget)
        ]


@dataclass(frozen=True)
class LoadSummary:
    """All cells of one load: those of single budgets, or those of one mix."""

    load: str
    mix: str | None
    """None for a sweep of single budgets."""
    rows: tuple[Row, ...]
    steps: tuple[Row, ...]
    """Of a ramp: a row for each of `rows` and each step that was measured."""
    held: tuple[str, ...]
    """The highest rate of a ramp that held, in words, for each budget or mix."""
    by_server: tuple[Row, ...]
    """Where requests were spread over several servers: a row for each of `rows` and each server."""
    price: Price | None
    fronts: tuple[Front, ...]
    """Accuracy against each cost that was measured of a setting with answers to judge."""

    @property
    def title(self) -> str:
        return self.load if self.mix is None else f"{self.load}, mix {self.mix}"

    @property
    def by_budget(self) -> list[Row]:
        """Without the row of all budgets of a mix."""
        return [row for row in self.rows if row.budget != ALL]

    @property
    def has_thresholds(self) -> bool:
        """Whether any of its requests were sent with a threshold."""
        return any(row.threshold is not None for row in self.rows)


@dataclass(frozen=True)
class Summary:
    """The figures of a run."""

    run: Run
    levels: tuple[Level, ...]
    loads: tuple[LoadSummary, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> list[Row]:
        return [row for load in self.loads for row in load.rows]

    @property
    def rows_and_parts(self) -> list[Row]:
        """Rows of whole cells, then those of their steps and servers, load by load."""
        return [row for load in self.loads for row in (*load.rows, *load.steps, *load.by_server)]


def summarise(run: Run) -> Summary:
    """The figures of a run; raises `LoadTestError` for invalid service levels."""
    levels = tuple(parse_level(text) for text in run.levels)
    groups: dict[tuple[str, str | None], list[Cell]] = {}
    for cell in run.cells:
        mix = None if len(cell.budgets) == 1 else mix_name(cell)
        groups.setdefault((cell.load, mix), []).append(cell)
    loads = tuple(
        _load_summary(load, mix, cells, levels, run.urls) for (load, mix), cells in groups.items()
    )
    left_out = (
        f"budget {row.name}, {row.load}: {row.left_out}; no headline uses what they show"
        for load in loads
        for row in load.rows
        if row.left_out and any(repeat.succeeded for repeat in row.repeats)
    )
    return Summary(run, levels, loads, (*all_warnings(run), *_failing(loads), *left_out))


def _load_summary(
    load: str, mix: str | None, cells: list[Cell], levels: Sequence[Level], urls: Sequence[str]
) -> LoadSummary:
    by_mix: dict[tuple[str, float | None], list[Cell]] = {}
    for cell in cells:
        by_mix.setdefault((mix_name(cell), cell.threshold), []).append(cell)
    rows = tuple(
        Row(
            mix=name,
            threshold=threshold,
            load=load,
            budget=budget,
            cells=tuple(same),
            repeats=tuple(figures(cell, levels, budget) for cell in same),
        )
        for (name, threshold), same in by_mix.items()
        for budget in (([ALL] if mix else []) + list(same[0].budgets))
    )
    reasons = any(cell_reasons(cell) for cell in cells)
    fronts = (_front(cost, rows) for cost in (REASONING_COSTS if reasons else COSTS))
    left_out = {row.setting for row in rows if row.left_out}
    by_step = [(row, [steps_of(cell, levels) for cell in row.cells]) for row in rows]
    held = (held_sentence(row.name, steps) for row, steps in by_step if not row.is_part)
    return LoadSummary(
        load=load,
        mix=mix,
        rows=rows,
        steps=tuple(found for row, steps in by_step for found in _step_rows(row, steps, levels)),
        held=tuple(sentence for sentence in held if sentence),
        by_server=tuple(found for row in rows for found in _server_rows(row, urls, levels)),
        price=(price_of_reasoning if reasons else price_of_a_thought)(cells, left_out),
        fronts=tuple(found for found in fronts if found),
    )


def _step_rows(row: Row, repeats: list[list[Step]], levels: Sequence[Level]) -> Iterator[Row]:
    longest = max(repeats, key=lambda steps: len(steps))
    for number, step in enumerate(longest):
        cells = [steps[number].cell for steps in repeats if len(steps) > number]
        yield replace(
            row,
            load=f"{row.load}, step {number + 1}: {step.rate:g}/s",
            cells=tuple(cells),
            repeats=tuple(figures(cell, levels, row.budget) for cell in cells),
            rate=step.rate,
        )


def _server_rows(row: Row, urls: Sequence[str], levels: Sequence[Level]) -> Iterator[Row]:
    for number, url in enumerate(urls):
        cells = [_of_server(cell, number) for cell in row.cells]
        yield replace(
            row,
            load=f"{row.load}, at {url}",
            cells=tuple(cells),
            repeats=tuple(figures(cell, levels, row.budget) for cell in cells),
            url=url,
        )


def _of_server(cell: Cell, number: int) -> Cell:
    records = [record for record in cell.records if record.server == number]
    return cell.model_copy(update={"records": records})


def _failing(loads: Sequence[LoadSummary]) -> Iterator[str]:
    """Which of several servers failed, and why."""
    for row in (row for load in loads for row in load.by_server if not row.is_part):
        for reason in reasons(row.cells)[:1]:
            failed, due = sum(row.failures.values()), sum(one.requests for one in row.repeats)
            name = f"budget {row.name}, {row.load}"
            yield f"{name}: {failed} of {due} requests failed ({reason.text})"


def _front(cost: Cost, rows: Sequence[Row]) -> Front | None:
    points = {}
    for row in rows:
        value = row.figure(cost.figure)
        if row.budget != ALL and row.accuracy is not None and value is not None:
            points[row.setting] = (value.mean, row.accuracy)
    left_out = {row.setting for row in rows if row.left_out}
    return front(cost, points, left_out) if points else None


def all_warnings(run: Run) -> list[str]:
    """The run's own, then those of its cells, each once with the cells that it applies to."""
    where: dict[str, list[str]] = {}
    for cell in run.cells:
        name = f"budget {setting_name(cell)}, {cell.load}, repeat {cell.repeat + 1}"
        for warning in cell_warnings(cell):
            where.setdefault(warning, []).append(name)
    total = len(run.cells)
    return list(run.warnings) + [
        warning if len(names) == total else f"{'; '.join(names)}: {warning}"
        for warning, names in where.items()
    ]


def cell_warnings(cell: Cell) -> list[str]:
    """Reasons to doubt a cell's figures."""
    warnings = list(cell.warnings)
    if cell.partial:
        warnings.append("cut short: the figures are those of the part that was measured")
    if not measured(cell.records):
        warnings.append("nothing was measured")
    return warnings
