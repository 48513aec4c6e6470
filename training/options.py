"""Shapes of command-line arguments that several commands share."""

import argparse
from pathlib import Path

LARGEST = 2**32 - 1


def whole_number(text: str, least: int) -> int:
    """Parse a whole number, for argparse."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))
    if not digits or not least <= int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from {least} to {LARGEST}"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 up."""
    return whole_number(text, 1)


def seed(text: str) -> int:
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


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--out` and `--force`, for `training.trainer.checkpoint.prepare_output`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that has files")


def add_problems(parser: argparse.ArgumentParser) -> None:
    """`--problems`, of each family."""
    parser.add_argument(
        "--problems", type=count, default=500, metavar="N", help="per family (default 500)"
    )
