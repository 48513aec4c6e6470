"""The private names of vLLM that this project uses (docs/vllm.md), read from vLLM's source files
without importing them, and the names that our own code turns out to use.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.support.servers import ROOT

TABLE = ROOT / "docs" / "vllm.md"
PLUGIN = ROOT / "quietstar_infer" / "vllm_plugin"
# Where our classes extend vLLM's own.
EXTENDING = (
    PLUGIN / "scheduler.py",
    PLUGIN / "runner.py",
    PLUGIN / "multi_step.py",
    *sorted((PLUGIN / "workers").glob("*.py")),
)
# Found like vLLM's names, but ours and Python's.
_NOT_VLLMS = {"_run_passes", "put"}
_ROW = re.compile(r"\| `(?P<name>vllm/\S+\.py::\S+)` \| (?P<purpose>.+?) \| `(?P<print>\w+)` \|")
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    """`name`: file and qualified name in vLLM's source, `vllm/….py::Class.name`."""

    name: str
    purpose: str
    fingerprint: str

    @property
    def last_name(self) -> str:
        return self.name.rpartition("::")[2].rpartition(".")[2]


def table() -> list[Row]:
    return [Row(*match.groups()) for match in _ROW.finditer(TABLE.read_text())]


def fingerprint(name: str) -> str | None:
    """Of a function: its code. Of a class: its fields, and its methods' signatures. Of an attribute
    or a variable: what is assigned to it. Comments, docstrings and layout do not count. None where
    there is no such name.
    """
    path, _, qualified = name.partition("::")
    tree = _parsed(path)
    if tree is None:
        return None
    *owners, last = qualified.split(".")
    scope: ast.AST = tree
    for owner in owners:
        found = _definition(scope, owner)
        if found is None:
            return None
        scope = found
    definition = _definition(scope, last)
    parts = (
        [_code(definition)] if definition else [ast.unparse(it) for it in _assigned(scope, last)]
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8] if parts else None


@cache
def _parsed(path: str) -> ast.Module | None:
    specification = find_spec("vllm")
    assert specification is not None
    assert specification.submodule_search_locations is not None
    file = Path(specification.submodule_search_locations[0]).parent / path
    return ast.parse(file.read_text()) if file.exists() else None


def _definition(scope: ast.AST, name: str) -> _Function | ast.ClassDef | None:
    for node in getattr(scope, "body", []):
        if isinstance(node, _Function | ast.ClassDef) and node.name == name:
            return node
    return None


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.stmt]:
    """The statements in a class or module that assign to an attribute or a variable."""
    for node in ast.walk(scope):
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        for target in targets:
            each = target.elts if isinstance(target, ast.Tuple) else [target]
            if any(getattr(it, "attr", getattr(it, "id", None)) == name for it in each):
                assert isinstance(node, ast.stmt)
                yield node


def _code(definition: _Function | ast.ClassDef) -> str:
    if isinstance(definition, ast.ClassDef):
        return "\n".join(_members(definition))
    body = definition.body[1:] if ast.get_docstring(definition) is not None else definition.body
    return "\n".join([ast.unparse(definition.args), *map(ast.unparse, body)])


def _members(definition: ast.ClassDef) -> Iterator[str]:
    for node in definition.body:
        if isinstance(node, ast.AnnAssign | ast.Assign):
            yield ast.unparse(node)
        elif isinstance(node, _Function):
            yield f"{node.name} {ast.unparse(node.args)}"


def used_names() -> dict[str, str]:
    """Names of vLLM that our classes call with `super()` or find in `self`, each with our file."""
    trees = {file: ast.parse(file.read_text()) for file in EXTENDING}
    ours = {name for tree in trees.values() for name in _defined(tree)}
    return {
        node.attr: str(file.relative_to(ROOT))
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and not node.attr.startswith("__")
        and node.attr not in _NOT_VLLMS
        and (_is_super(node.value) or (_is_self(node.value) and node.attr not in ours))
    }


def _defined(tree: ast.Module) -> Iterator[str]:
    """Methods and attributes that a module of ours defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_super(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )
