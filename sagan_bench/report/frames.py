"""Frames: rows of values, and for each column how a reader has it; shown, printed or filed.

A page shows the text of a cell and sorts by its value; a terminal prints the text; a CSV holds the
value.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sagan_bench.report.formats import number
from sagan_bench.report.text import Tone

Values = Mapping[str, Any]
"""Key of a column -> value."""
Format = Callable[[Any], str]
"""Number, or None for a missing one -> text."""
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": "$-$", "—": "---",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})  # fmt: skip
FORMULA = re.compile(r"^[=+@\t\r]|^-(?![\d.])")
"""What a spreadsheet would compute instead of show."""


@dataclass(frozen=True)
class Cell:
    """One cell for a reader.

    Attributes:
        text: what is read.
        sort: what is sorted by: a number, or a text; null comes last.
        tone: of a verdict.
        code: a command, shown on demand.
        look: variant whose mark stands before the text.
    """

    text: str
    sort: float | str | None = None
    tone: Tone | None = None
    code: str | None = None
    look: str | None = None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: of its values in the rows, and its name in a file.
        title: its name for readers; the key if empty.
        show: returns what a reader has of a row, a text to be sorted by the value, or a cell.
        numeric: set to the right.
        better: which values are.
        help: what it means.
        places: decimals, where no ``show`` says otherwise.
        more: shown in a page only when all columns are asked for.
    """

    key: str
    title: str = ""
    show: Callable[[Values], Cell | str] | None = None
    numeric: bool = True
    better: str | None = None
    help: str = ""
    places: int | None = None
    more: bool = False

    def cell(self, values: Values, plain: Format | None = None) -> Cell:
        """Return what a reader has of a row; ``plain`` formats what has no ``show``."""
        value = values.get(self.key)
        if self.show and not isinstance(value, Cell):
            value = self.show(values)
            if isinstance(value, str):
                sort = values.get(self.key) if self.numeric else None
                return Cell(value, sort if isinstance(sort, int | float) else None)
        if isinstance(value, Cell):
            return value
        if isinstance(value, str):
            return Cell(value)
        return Cell(plain(value) if plain else number(value, self.places), value)


@dataclass(frozen=True)
class Row:
    """One row; the first cell is its header.

    Attributes:
        values: by the keys of the columns.
        key: what its id is made of; empty for none.
        pinned: stays where it is when rows are sorted.
        variant: to filter by.
        status: to filter by.
    """

    values: Values
    key: str = ""
    pinned: bool = False
    variant: str = ""
    status: str = ""


@dataclass(frozen=True)
class Frame:
    """A table with a caption.

    Attributes:
        name: unique in the page.
        caption: what it holds.
        columns: as readers have them.
        rows: in order.
        foot: rows for readers alone, below the others.
        filtered: by variant and status, by whoever reads.
        file: name of its CSV; none if empty.
        filed: keys of the values in that file, in its order; those of the columns if empty.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    foot: Sequence[Row] = ()
    filtered: bool = False
    file: str = ""
    filed: Sequence[str] = ()

    @property
    def folded(self) -> int:
        """How many columns a page shows only when all are asked for."""
        return sum(column.more for column in self.columns)

    def texts(self, plain: Format | None = None) -> tuple[list[str], list[list[str]]]:
        """Return header and rows as text; ``plain`` formats what no column does."""
        header = [column.title or column.key for column in self.columns]
        rows = (row.values for row in self.rows)
        return header, [
            [column.cell(values, plain).text for column in self.columns] for values in rows
        ]

    def to_csv(self) -> str:
        """Return the values as CSV; a missing one is an empty cell."""
        keys = self.filed or [column.key for column in self.columns]
        return to_csv([{key: row.values.get(key) for key in keys} for row in self.rows])


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Iterable[Values], **how: Any
) -> Frame:
    """Return a frame of plain rows."""
    return Frame(name, caption, columns, tuple(map(Row, rows)), **how)


def to_csv(rows: Sequence[Values]) -> str:
    """Return rows as CSV; a missing value is an empty cell."""
    written = io.StringIO()
    writer = csv.DictWriter(
        written, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    return written.getvalue()


def _inert(value: Any) -> Any:
    """Return a text that a spreadsheet shows as it is, behind an apostrophe if need be."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def to_latex(frame: Frame, comment: str, plain: Format | None = None) -> str:
    """Return a frame as a LaTeX table that needs booktabs."""
    header, rows = frame.texts(plain)
    cells = [[" ".join(cell.split()).translate(LATEX) for cell in row] for row in (header, *rows)]
    first, *rest = [" & ".join(row) + r" \\" for row in cells]
    sides = "".join("r" if column.numeric else "l" for column in frame.columns)
    return "\n".join([
        f"% {' '.join(comment.split())}",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{sides}}}",
        r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def to_markdown(frame: Frame, plain: Format | None = None) -> str:
    """Return a frame as a Markdown table."""
    header, rows = frame.texts(plain)
    sides = ["---:" if column.numeric else "---" for column in frame.columns]
    lines = [header, sides, *rows]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in lines)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text) if text.strip("-:") else text
