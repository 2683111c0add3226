"""What the generators draw, at a seed that is chosen by rule."""

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.document import Document
from sagan_bench.report.films import films
from sagan_bench.report.pictures import MANY, chosen, frames, shown
from sagan_bench.report.sections._base import Block, Film, Pictures, Section, Text
from sagan_bench.report.svg import Theme

RULE = (
    "All at the last step, averaged weights. Where seeds are equal, the same place in two grids "
    "is the same noise.\nThe seed is chosen by rule, not by eye: the one whose runs are nearest "
    "the medians of all variants."
)


@SECTIONS.register("samples")
class Samples(Section):
    """What the generators draw, at a seed that is chosen by rule."""

    order = 30
    title = "Samples"
    of = ("study",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return the pictures, and leave their files to the source."""
        pictures, files, runs = chosen(source.findings, source.runs)
        film, more = films(pictures, runs)
        source.files.update({**files, **more})
        return {"pictures": (*pictures, *film)}

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the grids of real images and of the variants."""
        half = ", the upper half of each grid" if len(document.findings.variants) > MANY else ""
        note = Markup(
            f"Pictures in the page are compressed previews{half}; whole and lossless they lie in "
            "<code>data/</code>."
        )
        if document.pictures:
            grids = shown(document, theme.content, "real", "samples")
            film = Film(frames(document, theme.content, "samples"))
            yield self.block(Text(RULE), Pictures(grids), film, Text(note, "note"))
