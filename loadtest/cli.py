"""The command line: `python -m loadtest [COMMAND]`; without a command it is `run`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtest.errors import LoadTestError
from loadtest.options import (
    add_budgets,
    add_levels,
    add_load_options,
    count,
    measuring_parser,
    plan_from,
    positive,
)
from loadtest.parser import Parser, command_line

DESCRIPTION = """\
What does a thought budget cost, and what does it buy? Load tests for any OpenAI-compatible server.

  python -m loadtest --url http://127.0.0.1:8000 --budgets 0,2,4,8,16
        one cell per budget: latencies, throughput, and the price of a thought token
  python -m loadtest --url http://127.0.0.1:8000 --budgets 0,4,16 --answers demo --repeats 3
        accuracy beside cost, with the spread over three repeats
  python -m loadtest --url http://127.0.0.1:8000 --budgets 0,12 --thresholds 0,0.02,0.1,0.5 \\
      --answers demo
        think only where it pays: accuracy against passes per token, and the cheapest setting
  python -m loadtest --url http://127.0.0.1:8000 --budgets 0:0.5,4:0.3,16:0.2 --load poisson:8
        three budgets in one batch, requests at random times, 8 per second
  python -m loadtest scenario budget-sweep --url http://127.0.0.1:8000
        a recipe that is ready to use

Results (report.html, run.json, requests.jsonl, summary.csv) go to a new folder in runs/loadtest/.
"""
COMMANDS = """\
commands:
  run       send requests and report (may be left out; `run --help` has all options)
  sweep     find the knee between one request at a time and too many, without a rate to guess
  search    find the highest rate at which a service level holds, per budget
  scenario  one of the recipes: smoke, budget-sweep, threshold-sweep, mixed-budgets, overload
  soak      measured traffic beside clients that leave, send bad requests and compare answers
  compare   runs side by side; fails on a regression beyond a tolerance
  report    write report.html and summary.csv of a results folder again
  capacity  how many requests per second this machine can send
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, 1 for a bad result, 2 for a mistake in the call."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(DESCRIPTION + "\n" + COMMANDS, end="")
        return 0 if given else 2
    command, rest = (given[0], given[1:]) if not given[0].startswith("-") else ("run", given)
    try:
        if command not in HANDLERS:
            raise LoadTestError(f"no command {command!r}; there are {', '.join(HANDLERS)}")
        return HANDLERS[command](rest)
    except LoadTestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run_parser(command: str = "run") -> Parser:
    """All options of a run."""
    about = "Send requests to a server, budget by budget and load by load, and report."
    return measuring_parser(command, about, _add_run_options)


def _add_run_options(parser: Parser) -> None:
    add_load_options(parser)
    add_levels(parser.add_argument_group("service levels"), "of goodput")


def run(arguments: Sequence[str], scenario: str | None = None) -> int:
    """`run`: run a plan and report it."""
    options = run_parser().parse_args(arguments)
    from loadtest.analysis.levels import parse_level
    from loadtest.sending.runner import prepare, run_cells
    from loadtest.session import RunSettings, session

    levels = [parse_level(text).text for text in options.slo]
    plan = plan_from(options, options.load)
    prepared = prepare(plan)
    settings = RunSettings(command_line("run", arguments), options.label, scenario, levels)
    with session(prepared, options.out, settings, Console()) as under_way:
        for _ in run_cells(prepared, under_way.progress):
            if under_way.disk_is_full:
                break
    return under_way.finish()


def run_scenario(arguments: Sequence[str]) -> int:
    """`scenario`: run a recipe."""
    from loadtest.scenarios import load_scenario, names

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m loadtest scenario NAME --url URL [options of `run`]\n")
        print("\n".join(f"  {name:15}{load_scenario(name).about}" for name in names()))
        return 0 if arguments else 2
    scenario = load_scenario(arguments[0])
    return run(scenario.arguments(arguments[1:]), scenario.name)


def search_parser() -> Parser:
    """All options of a search."""
    return measuring_parser(
        "search",
        "Find the highest rate of requests (Poisson arrivals) at which all service levels hold,\n"
        "for each budget and threshold. Each rate is repeated until it is decided with 95 %\n"
        "confidence.\n\n"
        "  python -m loadtest search --url http://127.0.0.1:8000 --budgets 0,4,16 \\\n"
        "      --slo 'p95 time_per_visible_token<=100ms' 'p99 time_to_first_token<=2s'",
        _add_search_options,
        repeats=2,
    )


def _add_search_options(parser: Parser) -> None:
    group = parser.add_argument_group("search")
    add_budgets(group)
    add_levels(group, "all of them must hold", required=True)
    group.add_argument(
        "--start-rate", type=positive, default=1.0, metavar="R", help="per second (default 1)"
    )
    group.add_argument(
        "--max-rate", type=positive, default=10_000.0, metavar="R", help="go no higher"
    )
    group.add_argument(
        "--precision",
        type=positive,
        default=10.0,
        metavar="%",
        help="between the rates that hold and fail at the end (default 10)",
    )
    group.add_argument(
        "--most-repeats", type=count, default=5, metavar="N", help="of a close rate (default 5)"
    )


def run_search(arguments: Sequence[str]) -> int:
    """`search`: find the highest rate, budget by budget."""
    options = search_parser().parse_args(arguments)
    from loadtest.analysis.levels import parse_level
    from loadtest.analysis.search import SearchRange, search, sentence
    from loadtest.records import Cell
    from loadtest.sending.runner import Sender, prepare
    from loadtest.session import RunSettings, session
    from loadtest.traffic.arrivals import PoissonRate
    from loadtest.traffic.budgets import BudgetMix

    levels = [parse_level(text) for text in options.slo]
    limits = SearchRange(
        start=options.start_rate,
        precision=options.precision / 100,
        highest=max(options.max_rate, options.start_rate),
        fewest_repeats=options.repeats,
        most_repeats=max(options.most_repeats, options.repeats),
    )
    prepared = prepare(plan_from(options, [f"poisson:{options.start_rate:g}"]))
    settings = RunSettings(
        command_line("search", arguments), options.label, "search", [x.text for x in levels]
    )
    with (
        session(prepared, options.out, settings, Console()) as under_way,
        Sender(prepared, under_way.progress) as sender,
    ):
        for mix in prepared.plan.budgets:

            def measure(rate: float, repeat: int, mix: BudgetMix = mix) -> Cell:
                return sender.run(mix, PoissonRate(rate), repeat)

            found = search(measure, levels, limits)
            under_way.run.notes.append(sentence(mix.name, found))
            if found.interrupted or under_way.disk_is_full:
                break
    return under_way.finish()


def run_compare(arguments: Sequence[str]) -> int:
    """`compare`: runs side by side; 1 for a regression."""
    parser = Parser(
        "compare",
        "Runs side by side; the first is the baseline. Repeats, in one run or in several of the\n"
        "same label, become a mean and a 95 % t interval. With --fail-on, exits with 1 on a\n"
        "regression: a figure that is worse by more than the tolerance, and not by chance where\n"
        "there are repeats.\n"
        "\n  python -m loadtest compare before/run.json after/run.json \\\n"
        "      --fail-on 'p95 time_per_visible_token=10%' accuracy=2%",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder or run.json")
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="one for each run, in place of their own"
    )
    parser.add_argument(
        "--fail-on",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIGURE=N%",
        help="tolerated change for the worse; of shares (accuracy, failure_share) in points",
    )
    options = parser.parse_args(arguments)
    from loadtest.analysis.summary import summarise
    from loadtest.reporting.compare import compare, lines, parse_tolerance, regressions
    from loadtest.reporting.results import load_run
    from loadtest.reporting.terminal import print_table

    tolerances = [parse_tolerance(text) for text in options.fail_on]
    if len(options.runs) < 2:
        raise LoadTestError("compare needs two runs or more")
    runs = [load_run(path) for path in options.runs]
    if options.labels:
        if len(options.labels) != len(runs):
            raise LoadTestError(f"{len(options.labels)} --labels for {len(runs)} runs")
        for run, label in zip(runs, options.labels, strict=True):
            run.label = label
    console = Console()
    comparison = compare([summarise(run) for run in runs], [t.figure for t in tolerances])
    print_table(lines(comparison), console)
    worse = regressions(comparison, tolerances)
    for text in worse:
        console.print(f"regression: {text}", style="bold red", soft_wrap=True, highlight=False)
    return 1 if worse else 0


def run_report(arguments: Sequence[str]) -> int:
    """`report`: render a results folder again."""
    parser = Parser("report", "Write report.html and summary.csv of a results folder again.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder or run.json")
    options = parser.parse_args(arguments)
    from loadtest.analysis.summary import summarise
    from loadtest.reporting.report import write_report
    from loadtest.reporting.results import REPORT, SUMMARY, load_run, write_summary
    from loadtest.reporting.terminal import print_summary

    folder = options.run if options.run.is_dir() else options.run.parent
    summary = summarise(load_run(options.run))
    print_summary(summary, Console())
    write_summary(summary, folder / SUMMARY)
    write_report(summary, folder / REPORT)
    print(f"\nreport: {folder / REPORT}")
    return 0


def run_sweep(arguments: Sequence[str]) -> int:
    """`sweep`: from one request at a time to more than the server can answer."""
    from loadtest.sweep import sweep_command

    return sweep_command(arguments)


def run_soak(arguments: Sequence[str]) -> int:
    """`soak`: misbehaving clients beside measured traffic."""
    from loadtest.soak.command import soak_command

    return soak_command(arguments)


def run_capacity(arguments: Sequence[str]) -> int:
    """`capacity`: what the client itself can send."""
    from loadtest.capacity import capacity_command

    return capacity_command(arguments)


HANDLERS = {
    "run": run,
    "sweep": run_sweep,
    "search": run_search,
    "scenario": run_scenario,
    "soak": run_soak,
    "compare": run_compare,
    "report": run_report,
    "capacity": run_capacity,
}
