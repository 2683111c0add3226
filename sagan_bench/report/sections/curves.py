"""Scores on the way, and the losses, over training."""

from collections.abc import Iterable, Iterator
from typing import Any

from sagan_bench.core.registry import SECTIONS
from sagan_bench.evaluation.metrics import leading
from sagan_bench.report.document import Document, Series
from sagan_bench.report.frames import to_csv
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections._base import Block, Charts, Export, Section
from sagan_bench.report.svg import Drawn, Theme
from sagan_bench.runs.program import PROGRAM

ABOUT = "Every curve, thinned as in the page: scores on the way, losses, readings of blocks"
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
            exports = [Export({"curves.csv": to_csv(list(rows(document.series)))}, ABOUT)]
            yield self.block(Charts(charts), exports=exports)


def rows(series: Iterable[Series]) -> Iterator[dict[str, Any]]:
    """Yield a row for each point of each curve, those of blocks too."""
    for of in series:
        about = {"variant": of.variant, "seed": of.seed, "curve": of.name}
        for step, value in zip(of.steps, of.values, strict=True):
            yield {**about, "step": step, "value": value}


def _charts(document: Document, theme: Theme) -> Iterator[Drawn]:
    images = document.config.get("run", {}).get("eval_images", "fewer")
    of = "" if PROGRAM in document.config else f", of {images} images each"
    way, theirs = f"Scores on the way{of}: not the final ones.", document.findings.protocol
    primary = document.findings.primary.metric
    for metric in dict.fromkeys((primary, *leading(), *theirs.get("better", ()))):
        label = document.labels.get(metric, metric)
        yield from _curves.charts(document.series, metric, label, theme, way)
    losses = {} if PROGRAM in document.config else LOSSES
    for name, label in losses.items():
        caption = "One thin line a seed; thick: the median."
        yield from _curves.charts(document.series, name, label, theme, caption)
