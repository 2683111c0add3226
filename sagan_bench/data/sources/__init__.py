"""Names of data sets to sources: ``folder:PATH``, ``lsun:PATH#CATEGORY``, ...

A kind of data is one class in one module here (:class:`sagan_bench.data.sources._base.Source`).
"""

import difflib
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.names import kind_of
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources._base import Source


def open_source(spec: DataSpec) -> Source:
    """Find what ``spec`` names; nothing is decoded.

    Raises:
        UserError: No such kind of source, or there is nothing at its path.
    """
    written, kind = spec.source, kind_of(spec.source)
    known = ", ".join(SOURCES[name].usage for name in SOURCES)
    if kind not in SOURCES:
        raise UserError(f"unknown data {written!r}; known: {known}{_suggestion(written)}")
    if (":" in SOURCES[kind].usage) != bool(written.partition(":")[2]):
        raise UserError(f"data {written!r} is not complete or says too much; known: {known}")
    source: Source = SOURCES[kind](spec)
    return source


def _suggestion(written: str) -> str:
    if Path(written).expanduser().is_dir():
        return f"; did you mean 'folder:{written}'?"
    close = difflib.get_close_matches(kind_of(written).lower(), list(SOURCES), n=1)
    return f"; did you mean {SOURCES[close[0]].usage!r}?" if close else ""
