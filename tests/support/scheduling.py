"""Which tests run in the same process where pytest-xdist runs them in several (`pytest -n 2`).

The tests of a file stay together, and so do files whose tests share a server or the pool of
engines: each of these is started once per process that needs it.
"""

import ast
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

# Session fixtures that take long to start, and those that are made from one of them. The first that
# a file uses decides.
SHARED_FIXTURES = {
    "engines": "engines",
    "engine": "engines",
    "demo_server": "demo_server",
    "server": "server",
    "http": "server",
    "openai": "server",
    "n8_server": "n8_server",
    "small_server": "small_server",
    "quick_server": "quick_server",
}


class SharedFixtureScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Hands out groups of tests, the largest first."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return group_of(self._root / nodeid.partition("::")[0])


@cache
def group_of(file: Path) -> str:
    """The fixture that a test file shares with others, else the file itself."""
    arguments = {
        argument.arg
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
    }
    return next((SHARED_FIXTURES[name] for name in SHARED_FIXTURES if name in arguments), str(file))
