"""Options that several commands have; a `Plan` is made from them."""

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.parser import Parser
from loadtest.traffic.arrivals import FORMS, parse_load
from loadtest.traffic.budgets import BudgetMix, parse_budget_field, parse_budgets
from loadtest.traffic.datasets import DataSet, parse_columns
from loadtest.traffic.lengths import parse_lengths
from loadtest.traffic.plan import Extent, Plan, PromptPlan, StopRules, Target
from loadtest.traffic.thresholds import crossed, parse_thresholds

EXAMPLES = Path(__file__).parent / "examples"
BUILT_IN = "demo"
"""The name of the built-in file of answers: held-out problems of the demonstration model."""
DEFAULT_BUDGETS = "0,2,4,8,16"
DEFAULT_SECONDS = 30.0


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def not_negative(text: str) -> float:
    """A number from 0 up, for argparse."""
    return 0.0 if text in ("0", "0.0") else positive(text)


def count(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0 up, for argparse."""
    return 0 if text == "0" else count(text)


def share(text: str) -> float:
    """From 0 to 1, for argparse."""
    value = not_negative(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def json_object(text: str) -> dict[str, Any]:
    """Fields in JSON, for argparse."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no JSON object; write one like '{{\"top_p\": 0.9}}'"
        )
    return value


def columns(text: str) -> tuple[tuple[str, str], ...]:
    """Fields and columns, for argparse."""
    try:
        return parse_columns(text)
    except LoadTestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def header(text: str) -> tuple[str, str]:
    """An HTTP header, for argparse."""
    name, found, value = text.partition(":")
    if (
        not found
        or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name)
        or not value.strip().isprintable()
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write one like 'X-Team: tests'")
    return name, value.strip()


def measuring_parser(
    command: str, about: str, own: Callable[[Parser], None], repeats: int = 1
) -> Parser:
    """The parser of a command that sends a plan: the options of all of these, and the command's
    `own` after those of the server."""
    parser = Parser(command, about)
    add_target_options(parser)
    own(parser)
    add_extent_options(parser, repeats)
    add_prompt_options(parser)
    add_result_options(parser)
    return parser


def add_levels(group: Any, about: str, required: bool = False) -> None:
    """`--slo`."""
    group.add_argument(
        "--slo",
        nargs="+",
        action="extend",
        required=required,
        default=[],
        metavar="LEVEL",
        help=f"{about}, such as 'p95 time_per_visible_token<=100ms'",
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """The server, and fields that all requests have in common."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        required=True,
        action="append",
        help="such as http://127.0.0.1:8000, with or without /v1 or an endpoint such as "
        "/v1/completions; /chat/completions has the effect of --chat; repeated: servers of the "
        "same model, which take turns and have figures of their own, too",
    )
    group.add_argument("--model", help="default: the first that the server lists")
    group.add_argument(
        "--api-key",
        default=os.environ.get("OPENAI_API_KEY"),
        metavar="KEY",
        help="default: OPENAI_API_KEY of the environment",
    )
    group.add_argument(
        "--header",
        type=header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="an HTTP header of every request, may be repeated; in no file, as it may be a secret",
    )
    group.add_argument("--chat", action="store_true", help="use /v1/chat/completions")
    group.add_argument(
        "--ignore-eos",
        action="store_true",
        help="answers get their full length (vLLM and servers built on it)",
    )
    group.add_argument(
        "--temperature", type=not_negative, default=0.0, metavar="T", help="default 0"
    )
    group.add_argument(
        "--body",
        type=json_object,
        default={},
        metavar="JSON",
        help="more fields for every request, such as '{\"thought_temperature\": 0}'",
    )
    group.add_argument(
        "--timeout", type=positive, default=600.0, metavar="S", help="of a request (default 600)"
    )


def add_extent_options(parser: argparse.ArgumentParser, repeats: int) -> None:
    """How long, how often, and from how many processes."""
    group = parser.add_argument_group("extent")
    group.add_argument(
        "--duration",
        type=positive,
        metavar="S",
        help=f"measured seconds of each cell (default {DEFAULT_SECONDS:g}, or no limit with "
        "--requests)",
    )
    group.add_argument("--requests", type=count, metavar="N", help="measured requests of each cell")
    group.add_argument(
        "--warmup",
        type=not_negative,
        default=3.0,
        metavar="S",
        help="seconds of the same load before, not measured (default 3)",
    )
    group.add_argument(
        "--cooldown",
        type=not_negative,
        default=0.0,
        metavar="S",
        help="seconds for which an open loop goes on after (default 0)",
    )
    group.add_argument(
        "--drain",
        type=not_negative,
        default=60.0,
        metavar="S",
        help="seconds to wait for answers after the last request was due; those that have not come "
        "are failures (default 60)",
    )
    group.add_argument(
        "--error-rate",
        type=share,
        metavar="P",
        help="stop a cell when a larger share of its requests has failed, such as 0.1",
    )
    group.add_argument(
        "--over-saturation",
        action="store_true",
        help="stop a cell when the server falls ever further behind its open loop",
    )
    group.add_argument(
        "--repeats", type=count, default=repeats, metavar="N", help=f"default {repeats}"
    )
    group.add_argument(
        "--seed", type=whole, default=0, help="same seed, same requests at the same times"
    )
    group.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that send (default 1)"
    )
    group.add_argument(
        "--max-in-flight",
        type=count,
        default=4096,
        metavar="N",
        help="open requests at once; more wait at the client, which counts for their latency "
        "(default 4096)",
    )
    group.add_argument(
        "--reuse-cache",
        action="store_true",
        help="let cells profit from prompts that earlier ones left in the server's cache",
    )


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Prompts and lengths of answers."""
    group = parser.add_argument_group(
        "prompts",
        description="Synthetic ones by default. Lengths: 128, uniform:16-256, normal:128,sd=32 or "
        "lognormal:128,sigma=0.5.",
    )
    files = group.add_mutually_exclusive_group()
    files.add_argument(
        "--prompts", type=Path, metavar="FILE", help='JSONL with {"prompt": "…"} in each line'
    )
    files.add_argument(
        "--sharegpt", type=Path, metavar="FILE", help="conversations in ShareGPT's JSON"
    )
    files.add_argument(
        "--answers",
        metavar="FILE",
        help='JSONL with {"prompt": "…", "expected": "…"}: measure accuracy beside cost; '
        f"{BUILT_IN!r} is the demonstration model's held-out problems",
    )
    files.add_argument(
        "--dataset",
        metavar="NAME",
        help="a .jsonl, .json, .csv or .parquet file, or a data set of the hub (with the Python "
        "package datasets)",
    )
    group.add_argument(
        "--columns",
        type=columns,
        metavar="FIELD=COLUMN",
        help="of --dataset: prompt=question,expected=answer,max_tokens=limit (expected: measure "
        "accuracy), or conversation=messages (default prompt=prompt)",
    )
    group.add_argument("--split", metavar="NAME", help="of a data set of the hub (default train)")
    group.add_argument("--config", metavar="NAME", help="of a data set of the hub with several")
    group.add_argument(
        "--prompt-tokens", default="64", metavar="LENGTH", help="of synthetic ones (default 64)"
    )
    group.add_argument(
        "--output-tokens",
        metavar="LENGTH",
        help="max_tokens where the file does not say (default 64)",
    )
    group.add_argument(
        "--turns",
        type=count,
        default=1,
        metavar="N",
        help="sessions of so many turns, each with the earlier ones and their answers before it, "
        "due when the one before is answered; with --sharegpt those of the conversation; the rate "
        "of an open loop is still that of requests (default 1)",
    )
    group.add_argument(
        "--prefix-tokens",
        type=whole,
        default=0,
        metavar="N",
        help="a shared beginning of so many tokens, on top",
    )
    group.add_argument(
        "--prefix-share",
        type=share,
        default=1.0,
        metavar="P",
        help="of the prompts that have it (default 1)",
    )
    group.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or hub name to count tokens with; default: the server's /tokenize, else the "
        "usage of short requests, else words",
    )


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """The folder of the results, and the name of the run."""
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder that does not exist yet (runs/loadtest/…)"
    )
    group.add_argument(
        "--label", help="of the run, in tables; runs with one label are repeats to `compare`"
    )


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Budgets and loads of a run."""
    group = parser.add_argument_group("budgets and load", description=f"Loads:\n\n{FORMS}")
    add_budgets(group)
    group.add_argument(
        "--load",
        nargs="+",
        default=["closed:4"],
        metavar="LOAD",
        help="one or more, each with every budget (default closed:4)",
    )


def add_budgets(group: Any) -> None:
    """`--budgets` and `--thresholds`."""
    group.add_argument(
        "--budgets",
        help=f"0,2,4: one cell each; 0:0.5,4:0.3,16:0.2: one mix; none: send no budget "
        f"(default {DEFAULT_BUDGETS})",
    )
    group.add_argument(
        "--budget-field",
        metavar="FIELD=VALUES",
        help="for other servers, in place of --budgets: a field of the request and its values, one "
        "cell each, such as reasoning_effort=low,medium,high or thinking_token_budget=0,256,1024 "
        "or chat_template_kwargs.enable_thinking=false,true",
    )
    group.add_argument(
        "--thresholds",
        metavar="NATS",
        help="0,0.02,0.1: each with every budget but 0, one cell each; a request then thinks only "
        "before tokens at which the server expects a thought to gain more than so many nats, at 0 "
        "before every token (default: send none, so that the server's own threshold is in force)",
    )


def plan_from(options: argparse.Namespace, loads: list[str]) -> Plan:
    """The plan that the options describe; raises `LoadTestError`."""
    seconds = options.duration
    if seconds is None and options.requests is None:
        seconds = DEFAULT_SECONDS
    return Plan(
        target=Target(
            url=options.url[0],
            replicas=tuple(options.url[1:]),
            model=options.model,
            api_key=options.api_key,
            chat=options.chat
            or any(url.rstrip("/ ").endswith("/chat/completions") for url in options.url),
            ignore_eos=options.ignore_eos,
            temperature=options.temperature,
            extra_body=options.body,
            headers=dict(options.header),
            timeout=options.timeout,
        ),
        loads=tuple(parse_load(load) for load in loads),
        budgets=_budgets(options),
        prompts=_prompts(options),
        extent=Extent(seconds, options.requests, options.warmup, options.cooldown, options.drain),
        stops=StopRules(options.error_rate, options.over_saturation),
        repeats=options.repeats,
        seed=options.seed,
        workers=options.workers,
        max_in_flight=options.max_in_flight,
        reuse_cache=options.reuse_cache,
    )


def _budgets(options: argparse.Namespace) -> tuple[BudgetMix, ...]:
    if options.budget_field is None:
        budgets = parse_budgets(options.budgets or DEFAULT_BUDGETS)
        return crossed(budgets, parse_thresholds(options.thresholds))
    if options.budgets is not None or options.thresholds is not None:
        raise LoadTestError("--budget-field takes the place of --budgets and --thresholds")
    return parse_budget_field(options.budget_field)


def _prompts(options: argparse.Namespace) -> PromptPlan:
    source, path = "synthetic", None
    if options.prompts:
        source, path = "jsonl", options.prompts
    elif options.sharegpt:
        source, path = "sharegpt", options.sharegpt
    elif options.answers:
        source, path = "answers", answers_file(options.answers)
    elif options.dataset:
        source = "table"
    plan = PromptPlan(
        source=source,  # type: ignore[arg-type]
        path=path,
        table=_table(options),
        input_lengths=parse_lengths(options.prompt_tokens),
        turns=options.turns,
        prefix_length=options.prefix_tokens,
        prefix_share=options.prefix_share if options.prefix_tokens else 0.0,
        tokenizer=options.tokenizer,
    )
    if options.output_tokens is None:
        return plan
    return replace(plan, output_lengths=parse_lengths(options.output_tokens))


def _table(options: argparse.Namespace) -> DataSet | None:
    chosen = {name: getattr(options, name) for name in ("columns", "split", "config")}
    given = {name: value for name, value in chosen.items() if value is not None}
    if options.dataset is None:
        if given:
            raise LoadTestError(f"--{next(iter(given))} belongs to --dataset")
        return None
    return DataSet(options.dataset, **given)


def answers_file(name: str) -> Path:
    """The path of a file of answers; `demo` is the built-in one."""
    if name == BUILT_IN:
        return EXAMPLES / "demo-answers.jsonl"
    path = Path(name)
    if not path.is_file():
        raise LoadTestError(f"--answers {name}: no such file ({BUILT_IN!r} is built in)")
    return path
