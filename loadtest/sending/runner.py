"""A load test from its plan to its cells."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from loadtest.client.counters import OccupancyWatch, changes, read_counters
from loadtest.client.probe import ServerFacts, completions_url, probe_all
from loadtest.client.requests import RequestMaker, check_fields
from loadtest.client.tokens import Count, token_count
from loadtest.errors import LoadTestError
from loadtest.records import Cell, ServerSample
from loadtest.sending.cells import make_cell, snapshot
from loadtest.sending.interrupts import noted_interrupts
from loadtest.sending.job import Job
from loadtest.sending.pool import Collected, Pool
from loadtest.sending.progress import Progress, Upcoming
from loadtest.sending.stops import StopWatch
from loadtest.traffic.arrivals import Load
from loadtest.traffic.budgets import NO_BUDGET, BudgetMix
from loadtest.traffic.plan import Plan, PromptPlan
from loadtest.traffic.prompts import Prompts, SyntheticPrompts, file_prompts, synthetic_prompts
from loadtest.traffic.schedule import timing_of
from loadtest.traffic.seeds import rng_for
from loadtest.traffic.thresholds import crossed
from loadtest.traffic.words import count_by_tokens, count_by_words


@dataclass(frozen=True)
class Prepared:
    """A plan and what was found out about its server."""

    plan: Plan
    """With the budgets that will in fact be requested."""
    servers: tuple[ServerFacts, ...]
    """Requests are spread over them."""
    prompts: str
    """Their source, in words."""
    source: Prompts
    warnings: list[str]

    @property
    def server(self) -> ServerFacts:
        """The first; the others are like it."""
        return self.servers[0]


def prepare(plan: Plan) -> Prepared:
    """Probe the server and read the prompts, before anything is measured.

    Raises `LoadTestError` where a server cannot be reached, does not serve the model, allows
    smaller budgets only or is not like the others, and where a file of prompts cannot be read. A
    server without thought budgets, or without thresholds, is sent none, with a warning.
    """
    check_fields(plan.target.extra_body, plan.budgets)
    servers = probe_all(plan.target)
    server = servers[0]
    fitting, warnings = _fitting_thresholds(plan.budgets, server)
    budgets, more = _fitting_budgets(fitting, server)
    warnings += more
    synthetic = plan.prompts.source == "synthetic"
    with token_count(plan.prompts.tokenizer, plan.target, server, synthetic) as count:
        source = _prompts(plan.prompts, count)
        if count and isinstance(source, SyntheticPrompts):
            warnings += _inexact(source, count, plan.seed)
    if not server.counts_tokens:
        warnings.append(
            "this server does not say how many tokens a chunk of its stream brings: each is taken "
            "for one token, and gaps between tokens are gaps between chunks"
        )
    if not server.reports_usage:
        warnings.append(
            "this server reports no usage: its visible tokens cannot be verified, and its thought "
            "tokens are unknown"
        )
    return Prepared(replace(plan, budgets=budgets), servers, source.description, source, warnings)


def _fitting_thresholds(
    budgets: tuple[BudgetMix, ...], server: ServerFacts
) -> tuple[tuple[BudgetMix, ...], list[str]]:
    """The budgets with the thresholds to send to this server, and warnings about them."""
    asked = {mix.threshold for mix in budgets if mix.threshold is not None}
    if server.has_thresholds or not asked:
        return budgets, []
    return crossed(budgets, (None,)), [
        f"{server.url} has no thought thresholds (no default_thought_threshold in its /v1/models): "
        "each budget is measured once without, instead of with "
        + ", ".join(f"{threshold:.12g}" for threshold in sorted(asked))
    ]


def _fitting_budgets(
    budgets: tuple[BudgetMix, ...], server: ServerFacts
) -> tuple[tuple[BudgetMix, ...], list[str]]:
    """The budgets to send to this server, and warnings about them."""
    asked = [budget for mix in budgets for budget, _ in mix.shares if budget is not None]
    if not asked:
        return budgets, []
    if server.max_thought_budget is None:
        return (NO_BUDGET,), [
            f"{server.url} has no thought budgets (no quiet_star in its /v1/models): measured once "
            f"without, instead of with {', '.join(str(mix) for mix in budgets)}"
        ]
    if max(asked) > server.max_thought_budget:
        raise LoadTestError(
            f"thought budget {max(asked)} is more than {server.url} allows, "
            f"{server.max_thought_budget}: ask for less, or start it with --max-thought-budget "
            f"{max(asked)}"
        )
    return budgets, []


def _prompts(plan: PromptPlan, count: Count | None) -> Prompts:
    if plan.source != "synthetic":
        return file_prompts(plan, count or (lambda text: len(text.split())))
    return synthetic_prompts(plan, count_by_tokens(count) if count else count_by_words())


def _inexact(prompts: SyntheticPrompts, count: Count, seed: int) -> list[str]:
    """A warning where a prompt does not have the length that it should."""
    rng = rng_for(seed, "a prompt to count")
    vocabulary = prompts.vocabulary
    asked = max(prompts.input_lengths.draw(rng), vocabulary.opening)
    found = count(vocabulary.text(rng, asked))
    if found == asked and vocabulary.is_exact:
        return []
    return [
        f"synthetic prompts are not exact here: one that should have {asked} tokens has {found}; "
        "prompt_tokens of the records are the server's count"
    ]


def run_cells(prepared: Prepared, progress: Progress) -> Iterator[Cell]:
    """Run the whole plan and yield each cell when it ends: repeat by repeat, so that slow changes
    of the machine affect all loads and budgets alike.

    Ctrl-C, a server that goes away and a worker that dies end the run early: the last cell is then
    partial, and says why in its warnings. A second Ctrl-C, or one between two cells, raises
    `KeyboardInterrupt`.
    """
    plan = prepared.plan
    cells = [
        (budgets, load, repeat)
        for repeat in range(plan.repeats)
        for load in plan.loads
        for budgets in plan.budgets
    ]
    with Sender(prepared, progress, len(cells)) as sender:
        for budgets, load, repeat in cells:
            cell = sender.run(budgets, load, repeat)
            yield cell
            if cell.partial:
                return


class Sender:
    """Runs single cells, with worker processes that live for the length of a `with` block: for
    callers that choose the next cell by the results of the last one."""

    def __init__(self, prepared: Prepared, progress: Progress, total: int | None = None) -> None:
        self._prepared = prepared
        self._progress = progress
        self._total = total
        self._number = 0
        # A new one for each run, or a second run would find its prompts cached by the first.
        self._salt = secrets.token_hex(8)
        self._pool = Pool(prepared.plan.workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def run(
        self, budgets: BudgetMix, load: Load, repeat: int = 0, seconds: float | None = None
    ) -> Cell:
        """Run one cell, for as many seconds as given, else for the plan's extent; partial cells as
        in `run_cells`."""
        plan, servers = self._prepared.plan, self._prepared.servers
        if seconds is not None:
            plan = replace(plan, extent=replace(plan.extent, seconds=seconds))
        jobs = self._jobs(plan, budgets, load, repeat)
        timing = timing_of(load, plan.extent, plan.seed, repeat, plan.prompts.turns)
        self._progress.started(
            Upcoming(
                number=self._number,
                total=self._total,
                budgets=budgets,
                threshold=budgets.threshold,
                load=str(load),
                repeat=repeat,
                seconds=timing.sending_ends,
                requests=plan.extent.requests,
            )
        )
        self._number += 1
        collected = Collected()
        stops = StopWatch(plan.stops, load)
        with noted_interrupts() as interrupts:
            before = [read_counters(plan.target, server) for server in servers]
            with OccupancyWatch(plan.target, servers) as watch:
                for collected in self._pool.run(jobs, interrupts):
                    self._progress.update(snapshot(collected, timing))
                    collected.stop = collected.stop or stops.reason(collected)
            after = [read_counters(plan.target, server) for server in servers]
            cell = make_cell(plan, budgets, load, repeat, collected, timing)
        cell.server = changes(before, after)
        cell.occupancy = [
            ServerSample(
                time=seen.time - collected.start, running=seen.running, waiting=seen.waiting
            )
            for seen in watch.seen
        ]
        self._progress.finished(cell)
        return cell

    def _jobs(self, plan: Plan, budgets: BudgetMix, load: Load, repeat: int) -> list[Job]:
        server = self._prepared.server
        salted = all(one.salts_cache for one in self._prepared.servers) and not plan.reuse_cache
        maker = RequestMaker(
            target=plan.target,
            model=server.model,
            counting=server.counting,
            counting_fields=server.counting_fields,
            prompts=self._prepared.source,
            budgets=budgets,
            seed=plan.seed,
            cell=self._number,
            repeat=repeat,
            salt=f"{self._salt}-{self._number}" if salted else None,
        )
        return [
            Job(
                maker=maker,
                urls=tuple(
                    completions_url(one.api, plan.target.chat) for one in self._prepared.servers
                ),
                load=load,
                extent=plan.extent,
                worker=worker,
                workers=plan.workers,
                max_in_flight=max(1, plan.max_in_flight // plan.workers),
                turns=plan.prompts.turns,
            )
            for worker in range(plan.workers)
        ]
