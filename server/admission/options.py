"""What the server bears: the options about it, and their defaults."""

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

from server.admission import AdmissionLimits

# By option: default, metavar, help. Generous: a benchmark that sends thousands of requests at once
# should meet none of them.
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
        "passes of the model that these requests may take: tokens × (thought budget + 1). Divide "
        "by the passes your machine makes per second to get the longest wait",
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
        "seconds that a request may take, waiting included; then it is ended with an error",
    ),
    "receive-timeout": (
        60.0,
        "S",
        "seconds that a client may take to send its headers, and again to send its body",
    ),
    "max-body-mib": (32, "N", "size of a request's body"),
}


def add_limit_options(group: Any) -> None:
    """Add the options to a group of a parser."""
    for name, (default, metavar, text) in _OPTIONS.items():
        group.add_argument(
            f"--{name}",
            type=whole_number if isinstance(default, int) else seconds,
            default=default,
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )


def add_key_option(group: Any) -> None:
    """Add --api-key-file to a group of a parser."""
    group.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="API keys, one per line, # begins a comment. Also QUIETSTAR_API_KEYS in the "
        "environment; --api-key is visible to all users of the machine (default: no key is needed)",
    )


def admission_limits(args: Namespace) -> AdmissionLimits:
    """What may be served at once."""
    return AdmissionLimits(
        args.max_queued_requests, args.max_queued_passes, args.max_request_passes
    )


def max_body_bytes(args: Namespace) -> int:
    bytes_: int = args.max_body_mib << 20
    return bytes_


def whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative, must be 0 (no limit) or more")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 (no limit) or more seconds")
    return number
