"""The Python files of a checkout, parsed."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TESTS = "tests"
"""The folder of the tests, which is no package."""
_BLANK = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
)


@dataclass(frozen=True)
class Source:
    """One file; `path` is relative to the checkout."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def module(self) -> str:
        """Its dotted name; that of a package for an `__init__.py`."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        if self.path.name == "__init__.py":
            return self.module
        return self.module.rpartition(".")[0]

    @cached_property
    def token_lines(self) -> list[str]:
        """The lines of code, each as its tokens with a blank between them: without comments,
        docstrings, blank lines and import statements, which are alike without being copied."""
        ignored = _ignored_lines(self.tree)
        lines: dict[int, list[str]] = {}
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in _BLANK and token.start[0] not in ignored:
                lines.setdefault(token.start[0], []).append(token.string)
        return [" ".join(tokens) for _, tokens in sorted(lines.items())]


def package_sources(checkout: Path) -> dict[str, list[Source]]:
    """The files of each top-level package, by its name, then the tests', if there are any."""
    packages = sorted(file.parent for file in checkout.glob("*/__init__.py"))
    tests = checkout / TESTS
    folders = [folder for folder in packages if folder != tests] + [tests] * tests.is_dir()
    return {folder.name: list(_sources(folder, checkout)) for folder in folders}


def _sources(folder: Path, checkout: Path) -> Iterator[Source]:
    for file in sorted(folder.rglob("*.py")):
        yield Source(file.relative_to(checkout), file.read_text(encoding="utf-8"))


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: those in `if`, `try` and `with` blocks
    too, but not those that only type checkers see."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from module_level(node.orelse)
            continue
        for name in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from module_level(getattr(node, name, []))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from module_level(handler.body)


def _ignored_lines(tree: ast.Module) -> set[int]:
    """Those of import statements and of strings that stand for themselves."""
    ignored: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            ignored.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return ignored
