"""Public names, and those that are defined in more than one file."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.code.sources import Source, module_level


def repeated_names(sources: Iterable[Source]) -> dict[str, list[Path]]:
    """Public names at module level that two files or more define, and which files.

    `__main__.py` does not count: nobody imports from it.
    """
    files: dict[str, list[Path]] = {}
    for source in sources:
        if source.path.name != "__main__.py":
            for name in sorted(set(public_names(source.tree))):
                files.setdefault(name, []).append(source.path)
    return {name: paths for name, paths in sorted(files.items()) if len(paths) > 1}


def public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, functions and variables that a module defines, without a leading underscore."""
    for node in module_level(tree.body):
        yield from (name for name in _defined(node) if not name.startswith("_"))


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _stored(target)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _stored(target: ast.expr) -> Iterator[str]:
    for part in ast.walk(target):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
