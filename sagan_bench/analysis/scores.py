"""A table of scores, one row a run -> runs that may be compared, and what can be said of them."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from sagan_bench.analysis.asking import about
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.comparison import Findings
from sagan_bench.analysis.gathering import together
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import METRICS
from sagan_bench.core.stored import load_text
from sagan_bench.runs.environment import installed
from sagan_bench.runs.program import Better, Program, why_no_metric
from sagan_bench.runs.records import Environment, Record, Status
from sagan_bench.runs.run import Run

VARIANT, SEED = "variant", "seed"
SUFFIXES = (".csv", ".tsv")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
MOST = 1e100
"""Of a figure: beyond it, squares are beyond what a number holds."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WHOLE = re.compile(r"-?\d{1,18}(\.0*)?")
NOWHERE = Environment(python="", platform="", device="", command="", sagan_bench=installed())
"""Of runs of which only a table tells."""


@dataclass(frozen=True)
class Request:
    """What is asked of a table.

    Attributes:
        baseline: the variant that the others are held to.
        metric: the column that decides; by default the only one.
        better: which of its values are; needed where the metric is not one of ours.
        min_effect: smallest difference that matters, in its units or as in ``5%``.
        looks: how often results were looked at before more runs were added.
        where: what is said here is said, such as ``on the command line``.
    """

    baseline: str | None
    metric: str | None
    better: Better | None
    min_effect: float | str | None
    looks: int
    where: str


@dataclass(frozen=True)
class Table:
    """Rows of a table by what stands where.

    Attributes:
        source: its name.
        rows: where each stands -> its cells by column.
        columns: of figures, those with a number in some row.
    """

    source: str
    rows: Mapping[str, Mapping[str, Any]]
    columns: Sequence[str]


# --- Files and frames -> a table ---------------------------------------------------------------


def is_table(name: str) -> bool:
    """Return whether a name is that of a file with a table."""
    return name.lower().endswith(SUFFIXES) and not Path(name).is_dir()


def read(file: Path) -> Table:
    """Return the table in a file of CSV: of commas, semicolons or tabs, which its header tells.

    Raises:
        UserError: it cannot be read, or is no such table: in which line, and why.
    """
    text = load_text(file)
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=header.count)
    rows: dict[str, list[str]] = {}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows[f"line {reader.line_num}"] = cells
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}") from error
    if not rows:
        raise UserError(f"{file} is empty; its first line names the columns: variant, seed, fid")
    (_, names), *others = rows.items()
    if separator == ";":  # where numbers have a decimal comma
        others = [(at, [_with_point(cell) for cell in row]) for at, row in others]
    return _table(str(file), names, [(at, _fitted(row, names, file, at)) for at, row in others])


def _with_point(cell: str) -> str:
    point = cell.replace(",", ".")
    return point if cell.count(",") == 1 and NUMBER.fullmatch(point) else cell


def _fitted(row: list[str], names: Sequence[str], file: Path, at: str) -> list[str]:
    """Return the cells of a row, as many as there are columns."""
    if any(row[len(names) :]):
        more = f"{len(row)} cells for {len(names)} columns"
        raise UserError(f"{file}, {at}: {more}; put quotes around a cell that has a separator")
    return [*row, *[""] * (len(names) - len(row))][: len(names)]


def of_frame(frame: pd.DataFrame) -> Table:
    """Return the table in a frame.  Raises `UserError` as `read`."""
    names = [str(name).strip() for name in frame.columns]
    cells = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    rows = [(f"row {index}", row) for index, row in zip(frame.index, cells, strict=True)]
    return _table("the frame", names, rows)


def _table(source: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> Table:
    known = {name.lower(): name for name in names}
    for key in (VARIANT, SEED):
        if key not in known:
            raise UserError(
                f"{source} has no column '{key}'; it has {', '.join(filter(None, names))}; one row "
                "is one run: its variant, its seed, and its figures"
            )
    if twice := next((name for name in names if name and list(names).count(name) > 1), None):
        raise UserError(f"{source} has two columns '{twice}'; leave one out")
    if not rows:
        raise UserError(f"{source} has no runs below its header")
    by_column = {known[VARIANT]: VARIANT, known[SEED]: SEED}
    keys = [by_column.get(name, name) for name in names]
    cells = {at: dict(zip(keys, row, strict=True)) for at, row in rows}
    figures = [key for key in keys if key and key not in (VARIANT, SEED)]
    numeric = [key for key in figures if any(_is_number(row[key]) for row in cells.values())]
    return Table(source, cells, numeric)


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(NUMBER.fullmatch(cell.strip()))
    return isinstance(cell, Real) and not isinstance(cell, bool)


# --- A table -> runs ---------------------------------------------------------------------------


def findings_of(table: Table, request: Request) -> Findings:
    """Return what can be said of the runs in a table.

    It is a verdict where metric and smallest difference that matters are given: then the user
    declares them.  What is left to us is post hoc.

    Raises:
        UserError: what is wrong, in which row and column, or which option is missing.
    """
    variants = list(dict.fromkeys(_variant(table, at) for at in table.rows))
    if len(variants) == 1:
        raise UserError(f"{table.source} has one variant alone, {variants[0]}: compare two or more")
    if request.baseline not in variants:
        given = "" if request.baseline is None else f" {request.baseline}: there is no run of it"
        which = f"say which variant the others are held to: {', '.join(variants)}"
        raise UserError(f"--baseline{given}; {which}" if given else f"--baseline: {which}")
    if request.looks < 0:
        raise UserError(f"--looks {request.looks}: it is a count, from 0")
    metric = _metric(table, request.metric)
    better = _better(metric, request.better)
    is_declared = request.metric is not None and request.min_effect is not None
    return about(
        runs_of(table, metric, better),
        request.baseline,
        metric,
        request.min_effect,
        name=Path(table.source).stem.strip(".") or "scores",
        where=request.where if is_declared else "",
        looks=request.looks,
    )


def runs_of(table: Table, metric: str, better: Better) -> RunSet:
    """Return the runs in a table; a row without the metric is a run that diverged.

    Raises:
        UserError: what is wrong, in which row and column.
    """
    others = [name for name in table.columns if name != metric and not why_no_metric(name)]
    clean = [name for name in others if all(_is_figure(row[name]) for row in table.rows.values())]
    runs = []
    for at in table.rows:
        value = _figure(table, at, metric)
        figures = {name: _figure(table, at, name) for name in clean}
        record = _record(table, at, better, {metric: value, **figures})
        runs.append(Run(Path(table.source) / at, record))
    return together(runs)


def _record(table: Table, at: str, better: Better, figures: Mapping[str, float | None]) -> Record:
    metric, variant = next(iter(figures)), _variant(table, at)
    seed = table.rows[at][SEED]
    whole = str(seed).strip()
    if isinstance(seed, bool) or not WHOLE.fullmatch(whole):
        raise _error(table, at, SEED, f"{seed!r} is no whole number")
    program = Program(source=Path(table.source).name, better={metric: better})
    is_lost = figures[metric] is None
    name = f"{variant}-s{whole.partition('.')[0]}"
    return program.record(
        name, variant, int(whole.partition(".")[0]),
        Status.DIVERGED if is_lost else Status.FINISHED,
        [] if is_lost else [program.score(0, figures)],
        steps=0, environment=NOWHERE, reason=f"no value of {metric}" if is_lost else None,
    )  # fmt: skip


def _metric(table: Table, metric: str | None) -> str:
    known = [name for name in table.columns if not why_no_metric(name)]
    if metric is None and len(known) == 1:
        return known[0]
    if metric is None:
        which = f"say which decides: {', '.join(known)}" if known else "there is none"
        raise UserError(f"--metric: {which}; {table.source}")
    if metric not in {key for row in table.rows.values() for key in row} - {VARIANT, SEED}:
        raise UserError(f"--metric {metric}: there is no such column; {closest(metric, known)}")
    if why := why_no_metric(metric):
        raise UserError(f"--metric {metric}: {why}; call the column otherwise")
    for at in table.rows:
        _figure(table, at, metric)
    return metric


def _better(metric: str, better: Better | None) -> Better:
    if better not in (None, *get_args(Better)):
        raise UserError(f"--better {better}: say lower or higher")
    own = METRICS[metric].better if metric in METRICS else None
    if own and better not in (None, own):
        raise UserError(f"--better {better}: of {metric} {own} is better; leave it out")
    if known := own or better:
        return known
    raise UserError(f"--better: say which values of {metric} are, lower or higher")


def _variant(table: Table, at: str) -> str:
    variant = str(table.rows[at][VARIANT]).strip()
    if not variant or not variant.isprintable():
        raise _error(table, at, VARIANT, f"{variant!r} is no name")
    return variant


def _figure(table: Table, at: str, column: str) -> float | None:
    """Return a cell's number; None if it is empty or NaN."""
    cell = table.rows[at][column]
    if not _is_figure(cell):
        why = f"{cell!r} is no number; leave the cell empty if the run was lost"
        raise _error(table, at, column, why)
    value = float(cell) if _is_number(cell) else math.nan
    if abs(value) > MOST:
        why = f"{cell!r} is beyond {MOST:g}; leave the cell empty if the run was lost"
        raise _error(table, at, column, why)
    return None if math.isnan(value) else value


def _is_figure(cell: Any) -> bool:
    """Return whether a cell is a number, or says that there is none."""
    is_empty = isinstance(cell, str) and cell.strip().lower() in ("", "nan")
    return is_empty or _is_number(cell)


def _error(table: Table, at: str, column: str, why: str) -> UserError:
    return UserError(f"{table.source}, {at}, column {column}: {why}")
