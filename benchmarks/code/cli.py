"""The command line: `python -m benchmarks.code`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.code.measures import ALL, CodeMeasures, measure_checkout
from benchmarks.code.names import repeated_names
from benchmarks.code.sources import TESTS, package_sources

_ROOT = Path(__file__).parents[2]
_DESCRIPTION = """\
Measures the Python code of a checkout, package by package: sizes of files and functions,
annotations, names that are defined twice, the fullest folder, import circles, duplicated lines.
Needs nothing but Python, and imports nothing of what it measures."""
_EPILOG = """\
Functions: lines from `def` to the last one, nested functions and methods included. Annotated: all
parameters but self and cls, and the return value. Names: public ones at module level, defined in
two files or more (`__main__.py` not counted). Circles: groups of modules that import each other
when they are imported. Duplicated lines: those in runs of 6 or more equal lines in two places,
without comments, docstrings, blank lines and imports; in "all" also across packages."""


def print_measures(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 where a folder holds no Python package."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.code",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=_ROOT, help="a checkout (default: this one)"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another checkout, whose numbers are put before those of the first",
    )
    parser.add_argument(
        "--names", action="store_true", help="list the names that are defined twice, and where"
    )
    options = parser.parse_args(arguments)
    checkouts = [folder for folder in (options.against, options.folder) if folder]
    for folder in checkouts:
        if not any(folder.glob("*/__init__.py")):
            print(f"error: {folder} holds no Python package", file=sys.stderr)
            return 2
    print(aligned(table_of([measure_checkout(folder) for folder in checkouts])))
    if options.names:
        print("\n" + "\n".join(names_listing(options.folder)))
    return 0


def names_listing(checkout: Path) -> list[str]:
    """The public names that two files of one package define, and which files."""
    return [
        f"{name}: {', '.join(path.as_posix() for path in paths)}"
        for package, sources in package_sources(checkout).items()
        if package != TESTS
        for name, paths in repeated_names(sources).items()
    ]


def table_of(checkouts: Sequence[dict[str, CodeMeasures]]) -> list[list[str]]:
    """A row per measure, a column per package. What differs is written `before → after`, with `–`
    for a package that a checkout does not have."""
    names = dict.fromkeys(name for measured in checkouts for name in measured)
    packages = sorted(names, key=lambda name: (name == TESTS, name == ALL, name))
    rows = {
        name: [measured[name].rows() if name in measured else {} for measured in checkouts]
        for name in packages
    }
    titles = list(dict.fromkeys(title for each in rows.values() for row in each for title in row))
    return [["", *packages]] + [
        [title, *(_entry([row.get(title, "–") for row in rows[name]]) for name in packages)]
        for title in titles
    ]


def _entry(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else " → ".join(values)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first one flush left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned_line(line, widths) for line in lines)


def _aligned_line(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = line
    cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
    return "  ".join([first.ljust(widths[0]), *cells]).rstrip()
