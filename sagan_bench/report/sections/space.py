"""What was searched, and of which variants."""

from collections.abc import Iterator

from sagan_bench.core.registry import SECTIONS
from sagan_bench.experiments.tuning.searched import Axis
from sagan_bench.report.document import TuningDocument
from sagan_bench.report.formats import shown
from sagan_bench.report.frames import Column, table
from sagan_bench.report.sections._base import Block, Section
from sagan_bench.report.svg import Theme

COLUMNS = (
    Column("key", "Parameter", numeric=False),
    Column("scale", "Scale", numeric=False),
    Column("values", "Values", numeric=False),
    Column("variants", "Searched of", numeric=False),
)


@SECTIONS.register("space")
class Space(Section):
    """What was searched, and of which variants."""

    order = 90
    title = "Space"
    of = ("tuning",)

    def render(self, document: TuningDocument, theme: Theme) -> Iterator[Block]:
        """Yield every parameter with its values."""
        searches = document.findings.searches
        by_key = {axis.key: axis for search in searches for axis in search.axes}
        rows = [
            {
                "key": key,
                "scale": axis.scale,
                "values": _values(axis),
                "variants": ", ".join(
                    dict.fromkeys(search.variant for search in searches if axis in search.axes)
                ),
            }
            for key, axis in by_key.items()
        ]
        yield self.block(table("space", "What was searched", COLUMNS, rows))


def _values(axis: Axis) -> str:
    return ", ".join(map(shown, axis.choices)) if axis.choices else f"{axis.low:g} to {axis.high:g}"
