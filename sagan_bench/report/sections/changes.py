"""What differs between each variant and its baseline."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sagan_bench.config.naming import described
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.document import Document
from sagan_bench.report.formats import MISSING, shown
from sagan_bench.report.frames import Cell, Column, Frame, Row
from sagan_bench.report.sections._base import Block, Section, Terms
from sagan_bench.report.svg import Theme
from sagan_bench.runs.program import PROGRAM

EQUAL = "everything else is equal"
COLUMNS = (
    Column("pair", "Variant v baseline", lambda row: Cell(row["pair"], look=row["variant"]), False),
    Column("setting", "Setting", numeric=False),
    Column("before", "In the baseline", numeric=False),
    Column("after", "In the variant", numeric=False),
)


@SECTIONS.register("changes")
class Changes(Section):
    """What differs between each variant and its baseline."""

    order = 20
    title = "What differed"
    of = ("study",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return each variant in words where it is shipped, or in what its runs are not that."""
        says = {}
        for name, runs in source.collection.variants.items():
            first = runs[0]  # in what they compute, those of a name are alike
            if not first.program and first.config.variant == name:
                with suppress(UserError):
                    says[name] = "; ".join(described(first.config))
        return {"says": says}

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the variants in words, and all settings in which they differ."""
        baselines = {c.variant: c.baseline for c in document.findings.primary.comparisons}
        rows = []
        for variant, changed in document.findings.differences.items():
            lines = [(key, shown(old), shown(new)) for key, old, new in changed]
            for setting, before, after in lines or [("no setting differs", MISSING, MISSING)]:
                pair = f"{variant} v {baselines[variant]}"
                values = {"pair": pair, "setting": setting, "before": before, "after": after}
                rows.append(Row({"variant": variant, **values}, variant=variant))
        if rows:
            says = [(name, f"{text}.") for name, text in document.says.items()]
            equal = "as far as is known" if PROGRAM in document.config else EQUAL
            caption = f"All settings that differ from the baseline; {equal}"
            yield self.block(
                Terms(says, "says", marked=True), Frame("changes", caption, COLUMNS, rows)
            )
