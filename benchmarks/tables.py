"""Markdown tables."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> str:
    """A Markdown table, aligned; columns from `numbers_from` on are flush right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < numbers_from else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if i < numbers_from else "-" * (width + 1) + ":"
        for i, width in enumerate(widths)
    )
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in rows)])
