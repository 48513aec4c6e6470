"""The command line's options about limits, and their defaults."""

import argparse
from argparse import Namespace
from typing import Any

from server.admission.queue import AdmissionLimits

# By option: default, metavar, help. Large enough that a benchmark which sends thousands of requests
# at once reaches none of them.
_OPTIONS: dict[str, tuple[int | float, str, str]] = {
    "max-queued-requests": (
        10_000,
        "N",
        "requests that may run and wait; more are told to come back later (429, Retry-After). A "
        "prompt with n answers counts as n",
    ),
    "max-queued-passes": (
        100_000_000,
        "N",
        "passes of the model that these requests may take: tokens × (thought budget + 1). Divided "
        "by the passes that your machine makes per second it is the longest wait",
    ),
    "max-request-passes": (
        10_000_000,
        "N",
        "passes that one request may take, all its prompts and answers together; more is a 400 "
        "that says what would fit",
    ),
    "request-timeout": (
        3600.0,
        "S",
        "seconds that a request may take, waiting included; after that it ends with an error",
    ),
    "receive-timeout": (
        60.0,
        "S",
        "seconds that a client may take to send its headers, its body, and may stop reading for",
    ),
    "grammar-timeout": (
        5.0,
        "S",
        "seconds in which the grammar of a request must compile",
    ),
    "max-body-mib": (32, "N", "largest body of a request, in MiB"),
}
# Not among the first options that --help shows: few need another value.
_CONNECTION_OPTIONS: dict[str, tuple[int | float, str, str]] = {
    "engine-timeout": (
        60.0,
        "S",
        "seconds in which the engine must reply between two steps; /health says 503 after that",
    ),
    "keep-alive-timeout": (
        120.0,
        "S",
        "seconds that a connection without requests stays open; longer than proxies and clients "
        "keep theirs, or they send a request while it is being closed",
    ),
}
_MAX_TEXT_BYTES = 1 << 20


def add_limit_options(group: Any) -> None:
    """Add the options that bound work and requests to a group of a parser."""
    _add(group, _OPTIONS)


def add_connection_options(group: Any) -> None:
    """Add the options that bound how long engine and connections may be silent."""
    _add(group, _CONNECTION_OPTIONS)


def _add(group: Any, options: dict[str, tuple[int | float, str, str]]) -> None:
    for name, (default, metavar, text) in options.items():
        group.add_argument(
            f"--{name}",
            type=_whole_number if isinstance(default, int) else _seconds,
            default=default,
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )


def admission_limits(args: Namespace) -> AdmissionLimits:
    """The limits of a parsed command line."""
    return AdmissionLimits(
        args.max_queued_requests, args.max_queued_passes, args.max_request_passes
    )


def max_body_bytes(args: Namespace) -> int:
    """The largest body of a request, of a parsed command line; 0 = no limit."""
    bytes_: int = args.max_body_mib << 20
    return bytes_


def max_text_bytes(context_length: int) -> int:
    """The most bytes of text in the body of a request, names of fields included, on a server with a
    context of so many tokens."""
    return max(_MAX_TEXT_BYTES, 32 * context_length)


def _whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative, must be 0 (no limit) or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 (no limit) or more seconds")
    return number
