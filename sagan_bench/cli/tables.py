"""Tables and numbers for a terminal."""

import json
import os
import shutil
import sys
from collections.abc import Container, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len, chop_cells

from sagan_bench.cli.console import say, shown

if TYPE_CHECKING:
    from sagan_bench.report.frames import Frame

PIPED_COLUMNS = 160
"""Width of a table that is not printed on a terminal."""
LEAST_COLUMNS = 6
"""Width below which no column is folded."""


class _Box(NamedTuple):
    """What a table is drawn with: (left, line, between, right) of each rule; sides of the rows."""

    top: str
    under_header: str
    bottom: str
    header: str
    row: str


BOX = _Box("┏━┳┓", "┡━╇┩", "└─┴┘", "┃", "│")
ASCII = _Box("+-++", "|-+|", "+-++", "|", "|")


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], left: Container[str] = ()
) -> None:
    """Print a table to stdout; what is too wide is folded.  Not by rich, which takes 3 ms a row.

    Args:
        title: stands above it, unless empty.
        header: a title for each column.
        rows: of cells.
        left: titles of columns of words; the others but for the first are set to the right.
    """
    cells = [[shown(cell) for cell in row] for row in (header, *rows)]
    widths = _widths(cells, _columns())
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    box = BOX if encoding.lower().startswith("utf") else ASCII
    bold = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if title:
        say(title)
    to_left = [not number or name in left for number, name in enumerate(header)]
    lines = [_rule(box.top, widths), *_lines(cells[0], widths, to_left, box.header, bold=bold)]
    lines.append(_rule(box.under_header, widths))
    for row in cells[1:]:
        lines += _lines(row, widths, to_left, box.row)
    print("\n".join([*lines, _rule(box.bottom, widths)]))


def _widths(cells: Sequence[Sequence[str]], columns: int) -> list[int]:
    """Return the width of each column: of its widest cell, the widest columns less to fit."""
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    left = columns - 3 * len(widths) - 1
    words = [
        max(cell_len(word) for cell in column for word in cell.split(" "))
        for column in zip(*cells, strict=True)
    ]
    for least in (words, [LEAST_COLUMNS] * len(words)):  # words are broken last
        while sum(widths) > left:
            # The first column is what a row is found by: it is folded after all others.
            foldable = [n for n in range(1, len(widths)) if widths[n] > least[n]]
            if not foldable:
                break
            widths[max(foldable, key=widths.__getitem__)] -= 1
    if sum(widths) > left:
        widths[0] = min(widths[0], max(LEAST_COLUMNS, left - sum(widths[1:])))
    return widths


def _columns() -> int:
    """Return how many columns of text there are: a terminal's, or more where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_COLUMNS


def fits(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Return whether a table would be printed without folding a cell."""
    columns = zip(header, *rows, strict=True)
    return sum(max(map(cell_len, map(shown, column))) + 3 for column in columns) < _columns()


def _rule(parts: str, widths: Sequence[int]) -> str:
    left, line, between, right = tuple(parts)
    return left + between.join(line * (width + 2) for width in widths) + right


def _lines(
    row: Sequence[str],
    widths: Sequence[int],
    to_left: Sequence[bool],
    side: str,
    *,
    bold: bool = False,
) -> Iterable[str]:
    folded = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, folded))):
        texts = []
        for index, (parts, width) in enumerate(zip(folded, widths, strict=True)):
            part = parts[number] if number < len(parts) else ""
            space = " " * (width - cell_len(part))
            text = part + space if to_left[index] else space + part
            texts.append(f"\x1b[1m{text}\x1b[0m" if bold else text)
        yield f"{side} " + f" {side} ".join(texts) + f" {side}"


def _folded(text: str, width: int) -> list[str]:
    """Return lines of at most so many columns, between words where that is possible."""
    if cell_len(text) <= width:
        return [text]
    lines, line = list[str](), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        *whole, line = chop_cells(word, width) or [""]
        lines += whole
    return [*lines, line]


def number(value: Any) -> str:
    """Return four significant digits, or a dash where there is none."""
    if value is None or value != value:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return seconds as ``1:02:03``; those of a damaged record may be more than a calendar has."""
    try:
        return str(timedelta(seconds=round(seconds)))
    except OverflowError:
        return f"{seconds:.3g} s"


def print_frame(frame: "Frame") -> None:
    """Print a frame to stdout; nothing if it has no rows."""
    header, rows = frame.texts(number)
    if rows:
        print_table("", header, rows)


def changes(differences: Iterable[tuple[str, Any, Any]]) -> str:
    """Return (key, value before, value after) as ``key before → after``, in JSON."""
    return ", ".join(f"{key} {json.dumps(a)} → {json.dumps(b)}" for key, a, b in differences)
