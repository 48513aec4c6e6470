"""Whether a server stalls after its start: `python -m benchmarks.first_minute URL`.

Users send requests of all kinds, each another text, one request after the other, for a minute and
then for a second one. What is done for the first time holds up a request of the first minute: the
slowest of each kind is held against the median of its kind in the second. Requests also wait for
each other, in both minutes alike: that is the second minute's own ratio.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx

from benchmarks.tables import table
from training.demo.corpus.problems import held_out_problems
from training.demo.corpus.stories import make_story

_PROGRAM = "python -m benchmarks.first_minute"
_TIMEOUT_SECONDS = 120
MS_PER_SECOND = 1e3
TO_REACH = 3.0
"""The slowest request of the first minute by the median of its kind in the second, at most."""
_GREEDY = {"temperature": 0, "thought_temperature": 0}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "budget 0": {"thought_budget": 0},
    "always": {"thought_threshold": 0},
    "greedy": {"thought_threshold": 0, **_GREEDY},
    "penalties": {"repetition_penalty": 1.2, "top_p": 0.9, "top_k": 20, "seed": 3},
    "logprobs": {"logprobs": 5},
    "3 choices": {"n": 3},
    "scored prompt": {"echo": True, "logprobs": 1, "max_tokens": 1},
    "chat": {"messages": True},
    "streamed": {"stream": True},
}
"""What distinguishes the requests of a kind; all have a text, and a fixed length."""


class Answered(NamedTuple):
    """A request, when it was sent, in seconds since the traffic began, and what it took."""

    kind: str
    sent: float
    seconds: float


@dataclass(frozen=True)
class KindTimes:
    """A line of the table, in milliseconds; `at_seconds`: when the slowest request of the first
    minute was sent, since the traffic began.
    """

    kind: str
    number: int
    slowest: float
    at_seconds: float
    median_later: float
    slowest_later: float

    @property
    def ratio(self) -> float:
        return self.slowest / self.median_later

    @property
    def ratio_later(self) -> float:
        return self.slowest_later / self.median_later


class RefusedError(Exception):
    """The server refused a request."""


def texts(user: int) -> Iterator[str]:
    """Problems, all different, of nearly the same length."""
    return (problem.prompt for problem in held_out_problems(make_story, user))


def path_and_body(kind: str, text: str) -> tuple[str, dict[str, Any]]:
    """A request: no answer ends before its last token, so that all of a kind do the same work."""
    body = {"prompt": text, "max_tokens": 16, "ignore_eos": True, **KINDS[kind]}
    if body.get("messages"):
        del body["prompt"]
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    return "/v1/completions", body


def traffic(url: str, seconds: float, user: int, begun: float) -> Iterator[Answered]:
    """One user's requests, in decks of all kinds, until the time is over and a deck is finished.

    Raises `RefusedError`, and httpx's errors.
    """
    draw, prompts = random.Random(user), texts(user)
    end = time.perf_counter() + seconds
    is_over = False
    with httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS) as client:
        while not is_over:
            for kind in draw.sample(list(KINDS), len(KINDS)):
                path, body = path_and_body(kind, next(prompts))
                sent = time.perf_counter()
                answer = client.post(path, json=body)
                took = time.perf_counter() - sent
                if answer.is_error:
                    raise RefusedError(f"{kind}: {answer.status_code}, {answer.text[:200]}")
                yield Answered(kind, sent - begun, took)
            is_over = time.perf_counter() >= end


def minute(url: str, seconds: float, users: Sequence[int], begun: float) -> list[Answered]:
    """The requests of all users at the same time."""
    with ThreadPoolExecutor(len(users)) as pool:
        each = pool.map(lambda user: list(traffic(url, seconds, user, begun)), users)
        return [answered for answers in each for answered in answers]


def kind_times(first: Sequence[Answered], second: Sequence[Answered]) -> list[KindTimes]:
    """A line for each kind."""
    lines = []
    for kind in KINDS:
        ours = [answered for answered in first if answered.kind == kind]
        slowest = max(ours, key=lambda answered: answered.seconds)
        later = [MS_PER_SECOND * answered.seconds for answered in second if answered.kind == kind]
        lines.append(
            KindTimes(
                kind,
                len(ours),
                MS_PER_SECOND * slowest.seconds,
                slowest.sent,
                median(later),
                max(later),
            )
        )
    return lines


def times_table(lines: Sequence[KindTimes]) -> str:
    """The lines in Markdown."""
    header = (
        *("kind", "n", "slowest, ms", "sent after, s", "later: median, ms", "slowest, ms"),
        *("slowest : median", "later: slowest : median", "to reach", "reached"),
    )
    rows = [
        (
            line.kind,
            str(line.number),
            f"{line.slowest:.0f}",
            f"{line.at_seconds:.1f}",
            f"{line.median_later:.0f}",
            f"{line.slowest_later:.0f}",
            f"{line.ratio:.2f}",
            f"{line.ratio_later:.2f}",
            f"≤ {TO_REACH:g}",
            "yes" if line.ratio <= TO_REACH else "no",
        )
        for line in lines
    ]
    return table(header, rows, numbers_from=1)


def make_options_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Held against each other: a server's first minute and its second. For each "
        "kind of request the slowest of the first minute, and the median and the slowest of the "
        "second. Start it as soon as the server is ready; what is slow because others are served "
        "meanwhile is slow in both minutes.",
    )
    parser.add_argument("url", metavar="URL", help="of the server, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--seconds",
        type=_more_than_0,
        default=60,
        metavar="S",
        help="in place of a minute; every user sends each kind once, at least (default: 60)",
    )
    parser.add_argument(
        "--users",
        type=int,
        choices=range(1, 65),
        default=3,
        metavar="N",
        help="who send requests at the same time, 1 to 64 (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, too")
    return parser


def _more_than_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no length of time, must be more than 0")
    return value


def first_minute_command(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status: 0, 1 where a request was refused or broke off, 2 for a
    server or file that cannot be reached."""
    options = make_options_parser().parse_args(arguments)
    users, load_before, begun = range(options.users), os.getloadavg()[0], time.perf_counter()
    try:
        first = minute(options.url, options.seconds, users, begun)
        # Other texts than before.
        others = range(options.users, 2 * options.users)
        second = minute(options.url, options.seconds, others, begun)
        lines = kind_times(first, second)
        load_after = os.getloadavg()[0]
        print(
            f"load average here {load_before:.1f} before, {load_after:.1f} after, "
            f"{os.cpu_count()} cores",
            end="\n\n",
        )
        print(times_table(lines))
        if options.json:
            _write_figures(options, lines)
    except (OSError, httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        print(f"{_PROGRAM}: {options.url}: {error}", file=sys.stderr)
        return 2
    except (RefusedError, httpx.HTTPError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _write_figures(options: argparse.Namespace, lines: Sequence[KindTimes]) -> None:
    results = [
        asdict(line) | {"ratio": line.ratio, "ratio_later": line.ratio_later} for line in lines
    ]
    content = {
        "benchmark": "first minute",
        "seconds": options.seconds,
        "users": options.users,
        "results": results,
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(first_minute_command())
