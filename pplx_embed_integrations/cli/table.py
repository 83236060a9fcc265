"""Rows of text as an aligned table for the terminal.

Knows column widths; must not know what the cells mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from .terminal import text_width


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> str:
    """Lay out rows under a header.

    Args:
        header: The columns' names.
        rows: One sequence of cells per row, as long as the header.
        right: The names, separated by commas, of the columns that are aligned to the right.

    Returns:
        The table, without a trailing newline.

    Example:
        >>> print(table(["name", "width"], [["a", 8], ["long", 1024]], right="width"))
        name  width
        ----  -----
        a         8
        long   1024
    """
    aligned_right = {name.strip() for name in right.split(",")}
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(text_width(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    lines = [list(header), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            _pad(cell, width, right=name in aligned_right)
            for cell, width, name in zip(line, widths, header, strict=True)
        ).rstrip()
        for line in lines
    )


def _pad(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - text_width(cell))
    return space + cell if right else cell + space
