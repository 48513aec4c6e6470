"""Types and groups of command-line options that several commands share.

This module imports neither torch nor transformers, so that --help and mistakes are answered at
once.
"""

import argparse
from pathlib import Path
from typing import TypeAlias

from training.config import BEGINNINGS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command's parser is added."""
LARGEST_NUMBER = 2**32 - 1


def whole_number(text: str, least: int) -> int:
    """Parse a whole number, for argparse."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_NUMBER))
    if not digits or not least <= int(text) <= LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from {least} to {LARGEST_NUMBER}"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 up."""
    return whole_number(text, 1)


def seed(text: str) -> int:
    """A whole number from 0 up."""
    return whole_number(text, 0)


def thought_budget(text: str) -> int:
    """A whole number from 0 up."""
    return whole_number(text, 0)


def temperature(text: str) -> float:
    """A number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def thought_threshold(text: str) -> float:
    """A finite number from 0 up, in nats."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a finite number from 0 (think before every token) up, in nats"
        )
    return value


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--out` and `--force`, for `training.output.prepare_output`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that has files")


def add_beginning(parser: argparse.ArgumentParser) -> None:
    """`--beginning`, the rule of `training.beginning`."""
    parser.add_argument(
        "--beginning",
        choices=BEGINNINGS,
        default="tokenizer",
        help="what stands before a text, as data.beginning of the recipe that the model was "
        "trained by: what its tokenizer puts there itself; its beginning-of-text token (or "
        "end-of-text token) in any case; nothing (default tokenizer, as a server does)",
    )


def add_problems(parser: argparse.ArgumentParser, default: int = 500) -> None:
    """`--problems`, of each family."""
    parser.add_argument(
        "--problems",
        type=count,
        default=default,
        metavar="N",
        help=f"per family (default {default})",
    )


def add_evaluated_model(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, the backend that runs it, and the thought budgets."""
    parser.add_argument(
        "model", metavar="MODEL", help="folder or hub name of a Quiet-STaR checkpoint"
    )
    parser.add_argument(
        "--url",
        help="ask this server, such as http://localhost:8000, which serves MODEL; without it MODEL "
        "is asked in this process. MODEL's tokenizer is used in both cases",
    )
    parser.add_argument(
        "--served-model", metavar="NAME", help="with --url: the server's name for MODEL"
    )
    parser.add_argument(
        "--budgets",
        type=thought_budget,
        nargs="+",
        default=[0, 2, 4, 8, 12, 16],
        metavar="N",
        help="thought budgets; 0 is always among them (default: 0 2 4 8 12 16)",
    )
    parser.add_argument("--device", help="in process: cpu, cuda, cuda:1 … (default: a GPU if any)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="in process"
    )
    parser.add_argument(
        "--thought-embeddings",
        choices=("learned", "reset"),
        help="in process: START and END, as the server's option (default: the checkpoint's)",
    )
