"""Makes a cell from the reports of the workers."""

from collections.abc import Sequence

from loadtest.client.answer import Asked, most_thoughts
from loadtest.records import Cell, Failure, Record, window_up_to
from loadtest.sending.health import combine, complaints
from loadtest.sending.pool import Collected
from loadtest.sending.progress import Phase, Snapshot
from loadtest.traffic.arrivals import ClosedLoop, Load, Ramp
from loadtest.traffic.budgets import BudgetMix
from loadtest.traffic.plan import Extent, Plan
from loadtest.traffic.schedule import Timing


def snapshot(collected: Collected, timing: Timing) -> Snapshot:
    """The state of a running cell, for watchers."""
    return Snapshot(
        elapsed=collected.elapsed,
        phase=_phase(collected, timing),
        due=collected.due,
        sent=collected.sent,
        # A request that was never sent is not one of those in flight.
        finished=len(collected.records) - collected.failures[Failure.UNSENT],
        failures=dict(collected.failures),
        fresh=tuple(collected.fresh),
    )


def _phase(collected: Collected, timing: Timing) -> Phase:
    if collected.elapsed < timing.warmup_ends:
        return Phase.WARMUP
    if timing.sending_ends is not None and collected.elapsed >= timing.sending_ends:
        return Phase.DRAINING
    return Phase.MEASURING


def make_cell(
    plan: Plan,
    budgets: BudgetMix,
    load: Load,
    repeat: int,
    collected: Collected,
    timing: Timing,
) -> Cell:
    """The cell, without the server's counters. Records are in the order in which they were due."""
    records = sorted(collected.records, key=lambda record: (record.scheduled, record.index))
    waits = isinstance(load, ClosedLoop) or plan.prompts.turns > 1
    health = combine(collected.health) if collected.health else None
    warnings = _warnings(records, plan)
    if health is not None:
        warnings += complaints(health, collected.sent)
    stopped = collected.cut is not None and collected.cut == collected.stop
    if collected.cut is not None:
        what = "stopped, as asked," if stopped else "cut short"
        warnings.insert(0, f"{what} after {collected.cut_at:.1f} s: {collected.cut}")
    return Cell(
        budgets=budgets.by_name,
        budget_field=budgets.field.name if budgets.field else None,
        threshold=budgets.threshold,
        load=str(load),
        asked_rate=None if isinstance(load, ClosedLoop) else load.rate,
        concurrency=load.concurrency if isinstance(load, ClosedLoop) else None,
        repeat=repeat,
        window=_window(records, plan.extent, timing, collected.cut_at, waits),
        steps=_steps(load, timing.warmup_ends) if isinstance(load, Ramp) else [],
        records=records,
        client=health,
        partial=collected.cut is not None and not stopped,
        stopped=collected.cut if stopped else None,
        warnings=warnings,
    )


def _steps(ramp: Ramp, start: float) -> list[tuple[float, float, float]]:
    length = ramp.seconds / ramp.steps
    return [
        (rate, start + number * length, start + (number + 1) * length)
        for number, rate in enumerate(ramp.rates)
    ]


def _window(
    records: Sequence[Record],
    extent: Extent,
    timing: Timing,
    cut_at: float | None,
    waits: bool,
) -> tuple[float, float]:
    measured = [record for record in records if not record.warmup]
    end = timing.window_ends
    if waits and measured and len(measured) == extent.requests:
        # Requests wait for answers: the cell ends with the last of these, which counts.
        end = window_up_to(max(record.finished or 0.0 for record in measured))
    if cut_at is not None:
        end = cut_at if end is None else min(end, cut_at)
    assert end is not None, "without a time it ends after its last request"
    return timing.warmup_ends, max(end, timing.warmup_ends)


def _warnings(records: Sequence[Record], plan: Plan) -> list[str]:
    measured = [record for record in records if not record.warmup]
    good = [record for record in measured if record.failure is None]
    warnings = []
    if not measured:
        warnings.append("no request was due in the measured part: measure longer, or load more")
    if unseen := sum(record.ended_thinking for record in good):
        warnings.append(
            f"{unseen} of {len(good)} answers reached their length while they still reasoned, and "
            "show nothing: a larger --output-tokens would let them answer"
        )
    if short := sum(_thought_less(record, plan) for record in good):
        warnings.append(f"{short} of {len(good)} requests thought less than their budget")
    if plan.target.ignore_eos and (
        cut := sum(r.reasoning_tokens + r.visible_tokens < r.asked_tokens for r in good)
    ):
        warnings.append(
            f"{cut} of {len(good)} answers are shorter than asked although they were not to stop "
            "at an end of text: does prompt and answer fit into the model's context?"
        )
    return warnings


def _thought_less(record: Record, plan: Plan) -> bool:
    if record.budget is None or record.thought_tokens is None or record.is_gated:
        return False
    limit = plan.target.extra_body.get("thinking_token_budget")
    due = most_thoughts(Asked(0, record.budget, thought_limit=limit), record.visible_tokens)
    return record.thought_tokens < due
