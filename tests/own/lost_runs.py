"""A section of the report: how many runs of each variant were lost."""

from collections.abc import Iterator
from typing import Any

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.document import Document
from sagan_bench.report.frames import Column, table
from sagan_bench.report.sections._base import Block, Section, Text
from sagan_bench.report.svg import Theme


@SECTIONS.register("lost-runs")
class LostRuns(Section):
    """A sentence and a table."""

    order, title, of = 25, "Losses & gains", ("study",)

    def collect(self, source: Any) -> dict[str, int]:
        """Return variant -> lost runs."""
        lost = {run.variant: 0 for run in source.runs}
        for run in source.runs:
            lost[run.variant] += run.lost
        return lost

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the section."""
        counts = document.sections[self.name]
        columns = (Column("variant", "Variant", numeric=False), Column("lost", "Lost"))
        rows = [{"variant": name, "lost": count} for name, count in counts.items()]
        frame = table("lost", "Lost runs of each variant", columns, rows, file="lost.csv")
        yield self.block(Text("Lost runs are <counted>."), frame)
