"""`python -m server.soak`."""

import argparse
import asyncio
import os
import sys
import time

import httpx
import psutil  # type: ignore[import-untyped]

from server.soak.drive import Driver
from server.soak.tally import Tally
from server.soak.traffic import Traffic

PROGRAM = "python -m server.soak"
FINE, WRONG, UNREACHABLE = 0, 1, 2
DESCRIPTION = """\
Drive a running server with everything that clients do: thoughts of all lengths, streaming or not,
clients that leave, bad requests, bursts. Then say how it went. What is sent depends on the seed
only, when it is sent on the server's speed."""
EPILOG = """\
Exit status: 0 all is well; 1 a request failed, a bad one was accepted, thoughts leaked, an answer
differed from the same request's alone, or memory grew; 2 the server cannot be reached. Answers can
be compared where arithmetic does not depend on the batch: in float32, not in bfloat16 (then use
--tolerate-differences)."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=12, help="at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--api-key-variable",
        default="QUIETSTAR_API_KEY",
        metavar="NAME",
        help="environment variable with an API key (default: %(default)s)",
    )
    parser.add_argument(
        "--pid",
        type=int,
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
    return parser.parse_args(arguments)


async def soak(args: argparse.Namespace) -> int:
    key = os.environ.get(args.api_key_variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None)
    tally = Tally()
    async with httpx.AsyncClient(
        base_url=args.url, headers=headers, timeout=600, limits=limits
    ) as http:
        driver = Driver(http, await _traffic(http, args.seed), tally)
        pid = args.pid or _listening(httpx.URL(args.url))
        _say(f"seed {args.seed}, server process {pid or 'not found'}; asking one by one …")
        await driver.ask_alone()
        # Buffers that every server grows once are not a leak.
        await driver.run(args.clients, min(20, args.minutes * 6), lambda _: None)
        tally.memory_at_start = _memory(pid)
        await driver.run(args.clients, args.minutes * 60, lambda seconds: _progress(seconds, tally))
        await driver.ask_alone()
        tally.memory_at_end = _memory(pid)
    print(tally.report())
    wrongs = tally.wrongs(args.max_growth_mib, args.tolerate_differences)
    print("All is well." if not wrongs else f"WRONG: {'; '.join(wrongs)}")
    return WRONG if wrongs else FINE


async def _traffic(http: httpx.AsyncClient, seed: int) -> Traffic:
    model = (await http.get("/v1/models")).raise_for_status().json()["data"][0]
    asks = {"model": model["id"], "prompt": "a", "max_tokens": 1, "return_thoughts": True}
    shows = (await http.post("/v1/completions", json=asks)).is_success
    return Traffic(model["id"], model["quiet_star"]["max_thought_budget"], shows, seed)


def _listening(url: httpx.URL) -> int | None:
    """The process that listens at the URL's port, as far as one may see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    pids = (
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == url.port
    )
    return next(pids, None)


def _memory(pid: int | None) -> float | None:
    """MiB of a process and all below it."""
    if pid is None:
        return None
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_info().rss for member in family)) / (1 << 20)


def _progress(seconds: float, tally: Tally) -> None:
    _say(f"{seconds:5.0f} s: {tally.line()}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    args = parse()
    try:
        return asyncio.run(soak(args))
    except httpx.HTTPError as error:
        print(f"soak: {args.url} does not answer as it should: {error}", file=sys.stderr)
        return UNREACHABLE


if __name__ == "__main__":
    sys.exit(main())
