"""Modules that import each other."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import resolve_name

from benchmarks.code.sources import Source, module_level


def import_circles(sources: Sequence[Source]) -> list[list[str]]:
    """Groups of modules of which each imports every other, directly or through the others, while
    it is imported itself. Imports inside functions do not count."""
    modules = {source.module for source in sources}
    imports = {source.module: set(_imported(source, modules)) for source in sources}
    reachable = {module: _reachable(module, imports) for module in modules}
    groups = {
        tuple(sorted(other for other in found if module in reachable[other]))
        for module, found in reachable.items()
        if module in found
    }
    return [list(group) for group in sorted(groups)]


def _imported(source: Source, modules: set[str]) -> Iterator[str]:
    """The modules of the checkout that a module names in its imports."""
    for node in module_level(source.tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), source.package)
            # `from a import b` means the module a.b, or a name in the module a.
            named = {f"{base}.{alias.name}" for alias in node.names}
            yield from named & modules
            if named - modules and base in modules:
                yield base


def _reachable(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    """What is imported by a module, directly or indirectly; itself only if it is in a circle."""
    found: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports[name]
    return found
