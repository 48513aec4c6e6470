"""How long functions are, and whether they are annotated."""

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.code.sources import Source

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class FunctionShape(NamedTuple):
    """A function or method: its lines from `def` to the last one, and whether all its parameters
    and its return value are annotated."""

    lines: int
    annotated: bool


def function_shapes(sources: Iterable[Source]) -> Iterator[FunctionShape]:
    """Of all functions, methods and nested functions."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, FunctionNode):
                assert node.end_lineno is not None
                yield FunctionShape(node.end_lineno - node.lineno + 1, _is_annotated(node))


def _is_annotated(node: FunctionNode) -> bool:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args]
    if named and named[0].arg in ("self", "cls"):
        named = named[1:]
    rest = (arguments.vararg, arguments.kwarg)
    every = [*named, *arguments.kwonlyargs, *(argument for argument in rest if argument)]
    return node.returns is not None and all(argument.annotation for argument in every)
