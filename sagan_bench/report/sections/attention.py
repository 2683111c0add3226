"""What the blocks did, over training and at the end, and where they look."""

from collections.abc import Iterator

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import compared
from sagan_bench.report.document import Document
from sagan_bench.report.formats import MISSING
from sagan_bench.report.frames import Cell, Column, Frame, Row, Values
from sagan_bench.report.pictures import frames, shown
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections._base import (
    Block,
    Charts,
    Film,
    Heading,
    Part,
    Pictures,
    Section,
    Text,
)
from sagan_bench.report.svg import Drawn, Theme

READINGS = {
    "gamma": "|γ|, in y = x + γ o",
    "ratio": "strength ‖γ o‖ / ‖x‖",
    "entropy": "entropy of a query's weights, nats",
    "entropy_share": "entropy of a query's weights, of that of uniform ones",
    "distance_px": "distance from query to key, px",
    "largest_logit": "largest logit",
}
NOTE = (
    "Medians over a variant's runs, of averaged weights in G. A block whose strength stays below "
    "0.02 does nothing that could be judged."
)
MAPS = (
    "Left: the image and the five points that ask. Then one map for each point (cyan): bright "
    "where it looks, each scaled to its own maximum; an even tint is a block that looks "
    "everywhere alike."
)


def _share(row: Values) -> Cell:
    if row["entropy"] is None or not row["entropy_max"]:
        return Cell(MISSING)
    share = row["entropy"] / row["entropy_max"]
    return Cell(f"{share:.0%}", share)


COLUMNS = (
    Column("block", "Block", numeric=False),
    compared.VARIANT,
    Column("gamma", "|γ|", help="y = x + γ o; the sign of γ means nothing", places=3),
    Column("ratio", "Strength", help="‖γ o‖ / ‖x‖", places=3),
    Column("entropy", "Entropy", help="of a query's weights, in nats; uniform is the most",
           places=2),
    Column("entropy_max", "of uniform", _share, help="entropy / entropy of uniform weights"),
    Column("distance_px", "Distance, px", help="from query to key, expected", places=1),
)  # fmt: skip
YOUNG = (
    Column("largest_logit", "Largest logit", help="before the softmax, of all images", places=1),
)
"""Columns of what older runs do not tell: left out where none does."""


@SECTIONS.register("attention")
class Attention(Section):
    """What the blocks did, over training and at the end, and where they look."""

    order = 50
    title = "Attention"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the blocks at the end, their curves, and their maps."""
        frame, parts = frame_of(document), list[Part]()
        if frame.rows:
            parts += [frame, Text(NOTE, "note")]
        charts = list(_charts(document, theme))
        if not (parts or charts):
            return
        parts.append(Charts(charts))
        if maps := shown(document, theme.content, "attention"):
            film = Film(frames(document, theme.content, "attention"), maps=True)
            parts += [
                Heading("Where it looks", "maps"),
                Text(MAPS),
                Pictures(maps, maps=True),
                film,
            ]
        yield self.block(*parts)


def frame_of(document: Document) -> Frame:
    """Return what each block did at the end: medians over a variant's runs, of averaged weights."""
    blocks = compared.blocks(document.findings)
    columns = (*COLUMNS, *compared.known(YOUNG, blocks))
    rows = [Row(row, variant=row["variant"]) for row in blocks]
    return Frame("blocks", "What each block did at the end", columns, rows)


def _charts(document: Document, theme: Theme) -> Iterator[Drawn]:
    known = {series.name.partition(".")[0] for series in document.series}
    for reading, label in READINGS.items():
        if reading == "entropy" and "entropy_share" in known:  # of older reports alone
            continue
        raw = " Of the raw weights: G's average lags behind." if reading == "gamma" else ""
        caption = f"One thin line a seed; thick: the median.{raw}"
        yield from _curves.charts(document.series, reading, label, theme, caption)
