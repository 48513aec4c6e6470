"""`python -m loadtest soak`: measured traffic beside clients that do everything else."""

import argparse
import os
from collections.abc import Sequence

from rich.console import Console

from loadtest.client.probe import probe
from loadtest.errors import LoadTestError
from loadtest.options import add_result_options, count, positive, whole
from loadtest.parser import Parser, command_line
from loadtest.sending.runner import prepare, run_cells
from loadtest.session import RunSettings, Session, session
from loadtest.soak.background import BackgroundClients, SoakSettings
from loadtest.soak.tally import Tally
from loadtest.traffic.arrivals import parse_load
from loadtest.traffic.budgets import BudgetMix, parse_budgets
from loadtest.traffic.lengths import parse_lengths
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target

_BUDGETS = {0: 5, 4: 3, 16: 2}
"""Thought budgets of the measured requests, and their shares."""
_OUTPUT_TOKENS = "lognormal:32,sigma=0.5"
_WARMUP_SECONDS = 20.0
_TIMEOUT = 600.0
_DESCRIPTION = """\
Drive a running server with everything that clients do: thoughts of all lengths, streaming or not,
clients that leave, bad requests, bursts. Beside them, measured requests arrive in bursts (--load)
and are reported as those of `run`: do latencies stay as they are? What is sent depends on the seed
only; when the clients send it, on the server's speed."""
_EPILOG = """\
Exit status: 0 all is well; 1 a request failed, a bad one was accepted, thoughts leaked, an answer
differed from the same request's alone, memory grew, or the soak was cut short; 2 the server cannot
be reached. Answers can be compared where arithmetic does not depend on the batch: in float32, not
in bfloat16 (then use --tolerate-differences)."""


def soak_parser() -> Parser:
    """All options of a soak."""
    parser = Parser("soak", _DESCRIPTION, _EPILOG)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=positive, default=3.0, help="(default: %(default)s)")
    parser.add_argument("--clients", type=count, default=12, help="at once (default: %(default)s)")
    parser.add_argument(
        "--load",
        default="gamma:3,cv=2",
        help="of the measured requests, as in `run` (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--api-key-variable",
        default="QUIETSTAR_API_KEY",
        metavar="NAME",
        help="environment variable with an API key (default: %(default)s)",
    )
    parser.add_argument(
        "--pid",
        type=count,
        help="the server's process, to watch its memory and its children's (default: the one that "
        "listens at the URL's port on this machine)",
    )
    parser.add_argument(
        "--max-growth-mib",
        type=float,
        default=256.0,
        metavar="N",
        help="how much its memory may grow after the warm-up (default: %(default)s)",
    )
    parser.add_argument(
        "--tolerate-differences",
        action="store_true",
        help="report answers that differ from the same request's alone, but do not fail",
    )
    add_result_options(parser)
    return parser


def soak_command(arguments: Sequence[str]) -> int:
    """Soak a server; raises `LoadTestError` where it cannot be reached."""
    options = soak_parser().parse_args(arguments)
    key = os.environ.get(options.api_key_variable)
    target = Target(options.url, api_key=key, ignore_eos=True, timeout=_TIMEOUT)
    facts = probe(target)
    if facts.max_thought_budget is None:
        raise LoadTestError(f"{facts.url} has no thought budgets (no quiet_star in its /v1/models)")
    prepared = prepare(_measured_plan(options, target, facts.max_thought_budget))
    settings = RunSettings(command_line("soak", arguments), options.label, "soak")
    with BackgroundClients(_soak_settings(options), target, facts) as clients:
        with session(prepared, options.out, settings, Console()) as under_way:
            clients.start()
            (cell,) = run_cells(prepared, under_way.progress)
            if cell.partial:
                clients.stop()
            clients.finish()
        under_way.run.notes.append(f"beside the measured requests: {clients.tally.line()}")
        clients.tally.add_measured(cell)
        return _conclude(options, under_way, clients.tally)


def _conclude(options: argparse.Namespace, under_way: Session, tally: Tally) -> int:
    """Show and write the results; the exit status."""
    written = under_way.show_and_write()
    print(f"\n{tally.report()}")
    wrongs = tally.wrongs(options.max_growth_mib, options.tolerate_differences)
    if under_way.is_partial:
        wrongs.append("the soak was cut short")
    print(f"WRONG: {'; '.join(wrongs)}" if wrongs else "All is well.")
    return 0 if written and not wrongs else 1


def _soak_settings(options: argparse.Namespace) -> SoakSettings:
    return SoakSettings(
        clients=options.clients,
        warmup=_warmup(options),
        seconds=60 * options.minutes,
        seed=options.seed,
        pid=options.pid,
    )


def _measured_plan(options: argparse.Namespace, target: Target, max_budget: int) -> Plan:
    return Plan(
        target=target,
        loads=(parse_load(options.load),),
        budgets=(_measured_budgets(max_budget),),
        prompts=PromptPlan(output_lengths=parse_lengths(_OUTPUT_TOKENS)),
        extent=Extent(seconds=60 * options.minutes, warmup=_warmup(options)),
        seed=options.seed,
    )


def _measured_budgets(max_budget: int) -> BudgetMix:
    """The budgets of the measured requests that the server allows."""
    allowed = {budget: share for budget, share in _BUDGETS.items() if budget <= max_budget}
    (mix,) = parse_budgets(",".join(f"{budget}:{share}" for budget, share in allowed.items()))
    return mix


def _warmup(options: argparse.Namespace) -> float:
    return min(_WARMUP_SECONDS, 6 * float(options.minutes))
