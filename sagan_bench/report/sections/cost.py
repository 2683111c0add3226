"""What each run cost against what it reached."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.document import Document
from sagan_bench.report.formats import HOUR, MINUTE, listed
from sagan_bench.report.sections._base import Block, Charts, Section
from sagan_bench.report.svg import EDGE, FEW, LINE_CHARS, Look, Theme, drawn, panel, shortened
from sagan_bench.runs.records import Status


@SECTIONS.register("cost")
class Cost(Section):
    """What each run cost against what it reached."""

    order = 70
    title = "Cost"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield training time against the primary metric, every run a point."""
        primary = document.findings.primary
        points: dict[str, list[tuple[float, float]]] = {name: [] for name in theme.looks}
        longest = max((run.train_sec or 0 for run in document.runs), default=0)
        unit, size = ("hours", HOUR) if longest > 2 * HOUR else ("minutes", MINUTE)
        for run in document.runs:
            value, known = run.metrics.get(primary.metric), run.variant in points
            if known and run.status == Status.FINISHED and value is not None and run.train_sec:
                points[run.variant].append((run.train_sec / size, value))
        points = {name: own for name, own in points.items() if own}
        if not points:
            return
        medians = listed(
            f"{name} {median(x for x, _ in own):.3g} {unit} for {median(y for _, y in own):.3g}"
            for name, own in points.items()
        )
        way = "up" if primary.better == "higher" else "down"
        chart = drawn(
            cost(points, f"training, {unit}", primary.label, theme.looks),
            "cost",
            f"Medians of training time and {primary.label}: {medians}",
            f"Every finished run is a point; {way} is better.{_shared(document)}",
        )
        yield self.block(Charts((chart,)))


def _shared(document: Document) -> str:
    shared = any(variant.shared_device for variant in document.findings.variants)
    return " Runs shared a device: their times tell of each other too." if shared else ""


def cost(
    points: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, looks: Mapping[str, Look]
) -> Figure:
    """Each run's cost against its quality."""
    with panel(3.0 if len(points) > FEW else 2.6 + 0.19 * -(-len(points) // 2)) as (figure, axes):
        for name, own in points.items():
            axes.plot(
                *zip(*own, strict=True), ls="none", marker=looks[name].marker,
                color=looks[name].colour, ms=5.5, label=shortened(name, LINE_CHARS), **EDGE,
            )  # fmt: skip
        axes.set_xlabel(x)
        axes.set_title(y, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(points) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure
