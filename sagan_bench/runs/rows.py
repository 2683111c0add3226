"""Rows of a run's measurements, one JSON object a line: appended, read back, checked by seals."""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import naming
from sagan_bench.core.stored import damaged, parsed, refuse_special
from sagan_bench.runs.records import Record

ROWS = METRICS, DIAGNOSTICS = "metrics.jsonl", "diagnostics.jsonl"
_log = logging.getLogger(__name__)


def read_rows(path: Path, name: str, record: Record) -> list[dict[str, Any]]:
    """Return the rows of metrics or diagnostics of a run; none if there is no such file.

    Raises:
        UserError: The file cannot be read, or is not what was written.
    """
    file = path / name
    return [row for _, row in lines_of(file, read_sealed(path, name, record))]


def read_sealed(path: Path, name: str, record: Record) -> bytes:
    """Return what a file of a run holds, by its path in it; nothing if there is none.

    Raises:
        UserError: It cannot be read, or is not what was written.
    """
    file, seal = path / name, record.files.get(name)
    content = content_of(file)
    if seal is None or not file.exists():
        return content
    is_over = record.status.is_result
    # A run that was killed may have been cut back behind its record, by an attempt killed in turn.
    if (is_over or len(content) >= seal.length) and not seal.fits(content, whole=is_over):
        raise damaged(file, "it is not what was written: its SHA-256 is another")
    return content


def append(file: Path, row: Mapping[str, Any]) -> None:
    """Append a row; NaN and infinities become null."""
    with naming(file), file.open("ab") as opened:
        opened.write(to_json(row, inf_nan_mode="null") + b"\n")


def lines_of(file: Path, content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the sound lines and their rows; whatever else there is, is left out and said."""
    lines = content.splitlines(keepends=True)
    bad = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # torn by a kill, or being written just now
        try:
            row = parsed(line)
        except ValueError:
            row = None
        if _is_row(row):
            yield line, row
        else:
            bad.append(number)
    if bad:
        more = f" and {len(bad) - 1:,} others are" if len(bad) > 1 else " is"
        _log.warning("%s: line %d%s damaged and left out", file, bad[0], more)


def content_of(file: Path) -> bytes:
    """Return what a file holds, if there is one.  Raises `UserError` if it cannot be read."""
    try:
        refuse_special(file)
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):  # of a table, runs have no folder
        return b""
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def _is_row(row: Any) -> bool:
    """Return whether a value is a row: a step, and numbers or nulls, which may be grouped."""
    return isinstance(row, dict) and type(row.get("step")) is int and _is_numbers(row)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_numbers, value.values()))
    return value is None or (isinstance(value, int | float) and math.isfinite(value))
