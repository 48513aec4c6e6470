"""`python -m loadtest sweep`: from one request at a time to more than the server can answer, and
the knee between, without a rate to guess."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from loadtest.analysis.figures import figures
from loadtest.errors import LoadTestError
from loadtest.options import (
    DEFAULT_SECONDS,
    add_budgets,
    add_levels,
    count,
    measuring_parser,
    plan_from,
)
from loadtest.parser import Parser, command_line
from loadtest.records import Cell
from loadtest.sending.runner import Sender, prepare
from loadtest.session import RunSettings, session
from loadtest.traffic.arrivals import ClosedLoop, Ramp
from loadtest.traffic.budgets import BudgetMix

_BEYOND = 1.2
"""The last rate of the ramp, relative to the most that the server has answered."""


def sweep_parser() -> Parser:
    """All options of a sweep."""
    return measuring_parser(
        "sweep",
        "Find the knee of a server without a rate to guess, for each budget: one request after\n"
        "the other, then as many as it can answer, then a ramp of Poisson arrivals from the one\n"
        f"rate to {_BEYOND:g} times the other. The report has a row for each step, and names the\n"
        "highest rate that held."
        "\n\n  python -m loadtest sweep --url http://127.0.0.1:8000 --budgets 0,8 --duration 10",
        _add_sweep_options,
    )


def _add_sweep_options(parser: Parser) -> None:
    group = parser.add_argument_group("sweep")
    add_budgets(group)
    add_levels(group, "that a step must keep")
    group.add_argument(
        "--steps", type=count, default=6, metavar="N", help="of the ramp (default 6)"
    )
    group.add_argument(
        "--users",
        type=count,
        default=256,
        metavar="N",
        help="that send without a pause, to find the most that it can answer (default 256)",
    )


def sweep_command(arguments: Sequence[str]) -> int:
    """Sweep each budget in turn; raises `LoadTestError`."""
    options = sweep_parser().parse_args(arguments)
    if options.requests is not None:
        raise LoadTestError("a sweep measures times, not numbers of requests: --duration")
    from loadtest.analysis.levels import parse_level

    levels = [parse_level(text).text for text in options.slo]
    prepared = prepare(plan_from(options, ["synchronous"]))
    settings = RunSettings(command_line("sweep", arguments), options.label, "sweep", levels)
    with (
        session(prepared, options.out, settings, Console()) as under_way,
        Sender(prepared, under_way.progress) as sender,
    ):
        ramps: dict[BudgetMix, Ramp] = {}
        for repeat in range(options.repeats):
            for mix in prepared.plan.budgets:
                _sweep(sender, mix, repeat, ramps, options)
                if under_way.disk_is_full or under_way.is_partial:
                    return under_way.finish()
    return under_way.finish()


def _sweep(
    sender: Sender,
    mix: BudgetMix,
    repeat: int,
    ramps: dict[BudgetMix, Ramp],
    options: argparse.Namespace,
) -> None:
    """One budget, once. The rates of its ramp are those of the first repeat, so that repeats can be
    taken together."""
    alone = sender.run(mix, ClosedLoop(1), repeat)
    most = alone if alone.partial else sender.run(mix, ClosedLoop(options.users), repeat)
    if most.partial:
        return
    ramp = ramps.get(mix) or _ramp(alone, most, options.steps, options.duration or DEFAULT_SECONDS)
    if ramp is not None:
        ramps[mix] = ramp
        sender.run(mix, ramp, repeat, ramp.seconds)


def _ramp(alone: Cell, most: Cell, steps: int, seconds: float) -> Ramp | None:
    """None where nothing was answered."""
    rates = [figures(cell).completed_rate for cell in (alone, most)]
    if min(rates) <= 0:
        return None
    first, last = (float(f"{rate:.3g}") for rate in (rates[0], _BEYOND * max(rates)))
    return Ramp(first, last, steps * seconds, steps)
