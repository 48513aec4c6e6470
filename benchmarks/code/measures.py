"""All measures of a package, as rows of a table."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.code.circles import import_circles
from benchmarks.code.duplicates import duplicated_lines
from benchmarks.code.functions import FunctionShape, function_shapes
from benchmarks.code.names import repeated_names
from benchmarks.code.sources import TESTS, Source, package_sources

LONG_FUNCTION = 60
"""Lines, beyond which a function is counted as long."""
ALL = "all"
"""Stands for all packages together, without the tests."""


@dataclass(frozen=True)
class CodeMeasures:
    """What is measured of one package, or of all of them."""

    file_lines: list[int]
    functions: list[FunctionShape]
    repeated_in_a_package: int | None
    """Public names that two or more files of one package define; None for the tests."""
    repeated_across_packages: int | None
    """Those that two or more packages define; None for a single package."""
    fullest_folder: str
    modules_in_it: int
    """Without its `__init__.py`."""
    circles: int
    duplicated: int
    compared: int
    """Lines of code among which those are."""

    def rows(self) -> dict[str, str]:
        """Every measure as text, by its title."""
        lengths = sorted(function.lines for function in self.functions) or [0]
        annotated = sum(function.annotated for function in self.functions)
        return {
            "files": f"{len(self.file_lines)}",
            "lines": f"{sum(self.file_lines)}",
            "lines per file, median": f"{median(self.file_lines):g}",
            "lines of the largest file": f"{max(self.file_lines)}",
            "functions": f"{len(self.functions)}",
            "lines per function, median": f"{median(lengths):g}",
            "… 90 % have at most": f"{_percentile(lengths, 0.9)}",
            "… longest": f"{lengths[-1]}",
            f"functions over {LONG_FUNCTION} lines": f"{sum(n > LONG_FUNCTION for n in lengths)}",
            "annotated functions": f"{annotated / max(1, len(self.functions)):.1%}",
            "names twice in a package": _optional(self.repeated_in_a_package),
            "names in two packages": _optional(self.repeated_across_packages),
            "fullest folder": self.fullest_folder,
            "modules in it": f"{self.modules_in_it}",
            "import circles": f"{self.circles}",
            "duplicated lines": f"{self.duplicated}",
            "… share": f"{self.duplicated / max(1, self.compared):.1%}",
        }


def measure_checkout(checkout: Path) -> dict[str, CodeMeasures]:
    """The measures of each top-level package, of all of them together, and of the tests."""
    packages = package_sources(checkout)
    measured = {name: _measure([sources]) for name, sources in packages.items()}
    if TESTS in measured:
        # Fixtures and helpers of test files may have the same names.
        measured[TESTS] = replace(measured[TESTS], repeated_in_a_package=None)
    whole = [sources for name, sources in packages.items() if name != TESTS]
    return measured | {ALL: _measure(whole)}


def _measure(packages: Sequence[Sequence[Source]]) -> CodeMeasures:
    sources = [source for package in packages for source in package]
    folder, modules = _fullest_folder(sources)
    duplicated, compared = duplicated_lines(sources)
    return CodeMeasures(
        file_lines=[source.lines for source in sources],
        functions=list(function_shapes(sources)),
        repeated_in_a_package=sum(len(repeated_names(package)) for package in packages),
        repeated_across_packages=_across(sources) if len(packages) > 1 else None,
        fullest_folder=folder,
        modules_in_it=modules,
        circles=len(import_circles(sources)),
        duplicated=duplicated,
        compared=compared,
    )


def _across(sources: Sequence[Source]) -> int:
    found = repeated_names(sources)
    return sum(len({path.parts[0] for path in paths}) > 1 for paths in found.values())


def _fullest_folder(sources: Sequence[Source]) -> tuple[str, int]:
    modules = Counter(s.path.parent for s in sources if s.path.name != "__init__.py")
    folder, number = max(modules.items(), key=lambda item: item[1], default=(Path(), 0))
    return folder.as_posix(), number


def _optional(number: int | None) -> str:
    return "" if number is None else f"{number}"


def _percentile(ordered: Sequence[int], share: float) -> int:
    """The nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
