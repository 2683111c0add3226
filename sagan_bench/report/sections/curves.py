"""Scores on the way, and the losses, over training."""

from collections.abc import Iterator
from typing import Any

from sagan_bench.core.registry import SECTIONS
from sagan_bench.evaluation.metrics import leading
from sagan_bench.report.document import Document
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections._base import Block, Charts, Section
from sagan_bench.report.svg import Drawn, Theme
from sagan_bench.runs.program import PROGRAM

LOSSES = {"loss_d": "loss of D", "loss_g": "loss of G"}


@SECTIONS.register("curves")
class Curves(Section):
    """Scores on the way, and the losses, over training."""

    order = 40
    title = "Curves"
    of = ("study",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return all curves that a page shows, those of blocks too."""
        return {"series": tuple(_curves.series(source.findings.primary.metric, source.runs))}

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the scores on the way, and the losses."""
        if charts := list(_charts(document, theme)):
            yield self.block(Charts(charts))


def _charts(document: Document, theme: Theme) -> Iterator[Drawn]:
    images = document.config.get("run", {}).get("eval_images", "fewer")
    of = "" if PROGRAM in document.config else f", of {images} images each"
    way, theirs = f"Scores on the way{of}: not the final ones.", document.findings.protocol
    primary = document.findings.primary.metric
    for metric in dict.fromkeys((primary, *leading(), *theirs.get("better", ()))):
        label = document.labels.get(metric, metric)
        yield from _curves.charts(document.series, metric, label, theme.looks, way)
    losses = {} if PROGRAM in document.config else LOSSES
    for name, label in losses.items():
        caption = "One thin line a seed; thick: the median."
        yield from _curves.charts(document.series, name, label, theme.looks, caption)
