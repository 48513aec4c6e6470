"""Parsers of command lines whose errors are one line, and the command line that repeats a run."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from loadtest.errors import LoadTestError


class Parser(argparse.ArgumentParser):
    """Reports a mistake as a `LoadTestError`, without the usage of fifty options."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m loadtest {command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise LoadTestError(f"{message} (`{self.prog} --help` explains)")


def command_line(command: str, arguments: Sequence[str]) -> list[str]:
    """The command that repeats a run: without API keys and headers, and without the folder of the
    results, which exists by then."""
    hidden = {"--api-key", "--header", "--out"}
    shown: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in hidden:
            shown.append(argument)
        skip = argument in hidden
    return ["python", "-m", "loadtest", command, *shown]
