"""Runs of equal lines.

Lines are compared by their tokens, without comments, docstrings, blank lines and import statements
(`Source.token_lines`). Exact copies are found; a copy with other names is not.
"""

from collections.abc import Iterable

from benchmarks.code.sources import Source

RUN = 6
"""Lines that are equal in two places, from which on they count."""


def duplicated_lines(sources: Iterable[Source]) -> tuple[int, int]:
    """How many lines are in runs that occur twice or more, and how many lines there are."""
    files = [source.token_lines for source in sources]
    windows: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, lines in enumerate(files):
        for start in range(len(lines) - RUN + 1):
            windows.setdefault(tuple(lines[start : start + RUN]), []).append((number, start))
    duplicated = {
        (number, line)
        for places in windows.values()
        if len(places) > 1
        for number, start in places
        for line in range(start, start + RUN)
    }
    return len(duplicated), sum(map(len, files))
