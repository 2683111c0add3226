"""What each run cost against what it reached."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import live
from sagan_bench.report.document import Document
from sagan_bench.report.formats import HOUR, MINUTE, decimals, listed, number
from sagan_bench.report.sections._base import Block, Charts, Section
from sagan_bench.report.svg import EDGE, FEW, LINE_CHARS, Theme, drawn, panel, shortened
from sagan_bench.runs.records import Status

Point = tuple[float, float, int]
"""Cost and value of a run, and its seed."""


@SECTIONS.register("cost")
class Cost(Section):
    """What each run cost against what it reached."""

    order = 70
    title = "Cost"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield training time against the primary metric, every run a point."""
        primary = document.findings.primary
        points: dict[str, list[Point]] = {name: [] for name in theme.looks}
        longest = max((run.train_sec or 0 for run in document.runs), default=0)
        unit, size = ("hours", HOUR) if longest > 2 * HOUR else ("minutes", MINUTE)
        for run in document.runs:
            value, known = run.metrics.get(primary.metric), run.variant in points
            if known and run.status == Status.FINISHED and value is not None and run.train_sec:
                points[run.variant].append((run.train_sec / size, value, run.seed))
        points = {name: own for name, own in points.items() if own}
        if not points:
            return
        medians = listed(
            f"{name} {median(x for x, *_ in own):.3g} {unit} for {median(y for _, y, _ in own):.3g}"
            for name, own in points.items()
        )
        way = "up" if primary.better == "higher" else "down"
        chart = drawn(
            cost(points, unit, primary.label, theme),
            "cost",
            f"Medians of training time and {primary.label}: {medians}",
            f"Every finished run is a point; {way} is better.{_shared(document)}",
        )
        yield self.block(Charts((chart,)))


def _shared(document: Document) -> str:
    shared = any(variant.shared_device for variant in document.findings.variants)
    return " Runs shared a device: their times tell of each other too." if shared else ""


def cost(points: Mapping[str, Sequence[Point]], unit: str, label: str, theme: Theme) -> Figure:
    """Each run's cost against its quality."""
    with panel(3.0 if len(points) > FEW else 2.6 + 0.19 * -(-len(points) // 2)) as (figure, axes):
        for name, own in points.items():
            look, level = theme.looks[name], decimals(y for _, y, _ in own)
            style: Any = {"ls": "none", "marker": look.marker, "color": look.colour, "ms": 5.5}
            for x, y, seed in own:
                (point,) = axes.plot([x], [y], **style, **EDGE)
                says = f"{name}, seed {seed}: {x:.3g} {unit}, {number(y, level)}"
                live.tell(point, says, theme.run(name, seed))
            axes.plot([], [], label=shortened(name, LINE_CHARS), **style, **EDGE)
        axes.set_xlabel(f"training, {unit}")
        axes.set_title(label, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(points) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure
