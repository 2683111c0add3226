"""Tables and numbers for a terminal."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPED_COLUMNS = 160
"""Width of a table that is not printed on a terminal."""


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to stdout; columns after the first are numbers, to the right."""
    table = Table(title=escape(title) if title else None, title_justify="left")
    for index, name in enumerate(header):
        first = index == 0
        justify: Literal["left", "right"] = "left" if first else "right"
        table.add_column(escape(name), justify=justify, no_wrap=first, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table)


def number(value: Any) -> str:
    """Return four significant digits, or a dash where there is none."""
    if value is None or value != value:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def changes(found: Iterable[tuple[str, Any, Any]]) -> str:
    """Return (key, value before, value after) as ``key before → after``, in JSON."""
    return ", ".join(f"{key} {json.dumps(a)} → {json.dumps(b)}" for key, a, b in found)
