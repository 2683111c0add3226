"""What each difference is at every budget, in steps, FLOPs and seconds."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from sagan_bench.analysis.budget import BudgetCurve, BudgetPoint, Unit
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import live
from sagan_bench.report.document import Document
from sagan_bench.report.findings import UNITS, WITHHELD, of_curve, spent
from sagan_bench.report.formats import decimals, listed, number, span
from sagan_bench.report.frames import Cell, Column, Frame, Row, to_csv
from sagan_bench.report.sections._base import Block, Charts, Export, Section
from sagan_bench.report.svg import FEW, INK, LINE_CHARS, Theme, drawn, panel, shortened

COLUMNS = (
    Column("pair", "Comparison", numeric=False),
    Column("unit", "By", numeric=False),
    Column("crosses", "Beyond from", help="of the estimate, for good"),
    Column("excludes", "All of the interval from", help="simultaneous over all budgets"),
    Column("last", "At the end"),
)


@SECTIONS.register("budget")
class Budget(Section):
    """What each difference is at every budget, in steps, FLOPs and seconds."""

    order = 15
    title = "By budget"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the differences with their bands, and from where on they matter."""
        curves, label = document.findings.by_budget, document.findings.primary.label
        if not curves:
            return
        charts = []
        for unit in Unit:
            known = [curve for curve in curves if curve.unit == unit and curve.points]
            if known:
                figure = chart(known, f"difference in {label}", theme)
                says = "Bands hold at all budgets and for all comparisons at once with 95 %"
                alt = listed(map(of_curve, known))
                charts.append(
                    drawn(
                        figure,
                        f"budget-{unit}",
                        alt,
                        f"{says}; the grey one is what would not matter.",
                    )
                )
        caption = "From which budget on each difference is beyond the smallest that matters"
        table = Frame("by-budget", caption, COLUMNS, [Row(_row(curve)) for curve in curves])
        points = [_filed(curve, point) for curve in curves for point in curve.points]
        files = (Export({"budget.csv": to_csv(points)}, "each difference by budget"),)
        yield self.block(Charts(tuple(charts)), table, exports=files if points else ())


def _row(curve: BudgetCurve) -> dict[str, Cell]:
    pair, by = Cell(f"{curve.variant} v {curve.baseline}"), Cell(UNITS[curve.unit])
    if curve.withheld:
        return {"pair": pair, "unit": by, "last": Cell(WITHHELD[curve.withheld])}
    last = curve.points[-1]
    return {
        "pair": pair,
        "unit": by,
        "crosses": _from(curve.crosses, curve),
        "excludes": _from(curve.excludes_margin, curve),
        "last": Cell(_in_figures(last, _places(curve)), last.effect),
    }


def _places(curve: BudgetCurve) -> int:
    return decimals([curve.points[-1].effect, curve.margin])


def _in_figures(point: BudgetPoint, places: int) -> str:
    interval = f" {span(point.interval, places)}" if point.interval else ""
    return number(point.effect, places, signed=True) + interval


def _from(budget: float | None, curve: BudgetCurve) -> Cell:
    return Cell("never") if budget is None else Cell(spent(budget, curve.unit), budget)


def _filed(curve: BudgetCurve, point: BudgetPoint) -> dict[str, object]:
    low, high = point.interval or (None, None)
    of = {"variant": curve.variant, "baseline": curve.baseline, "unit": curve.unit.value}
    return {
        **of,
        "budget": point.budget,
        "effect": point.effect,
        "interval_low": low,
        "interval_high": high,
    }


def chart(curves: Sequence[BudgetCurve], label: str, theme: Theme) -> Figure:
    """Each difference against the budget with its band, over the band that does not matter."""
    unit = curves[0].unit
    with panel(2.6 if len(curves) <= FEW else 3.0) as (figure, axes):
        margins = {curve.margin for curve in curves}
        if len(margins) == 1:
            axes.axhspan(-min(margins), min(margins), color=INK, alpha=0.08, lw=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        for curve in curves:
            look, at = theme.looks[curve.variant], [point.budget for point in curve.points]
            axes.plot(
                at, [point.effect for point in curve.points], color=look.colour,
                marker=look.marker, ms=5,  # of the legend
                label=shortened(f"{curve.variant} v {curve.baseline}", LINE_CHARS),
            )  # fmt: skip
            _tell(axes, curve, theme)
            banded = [point for point in curve.points if point.interval]
            if len(curves) <= FEW:
                axes.fill_between(
                    [point.budget for point in banded],
                    [point.interval[0] for point in banded if point.interval],
                    [point.interval[1] for point in banded if point.interval],
                    color=look.colour, alpha=0.18, lw=0,
                )  # fmt: skip
        axes.set_xlabel(f"training, {UNITS[unit]}")
        axes.set_title(label, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if unit == Unit.FLOPS:
            axes.xaxis.set_major_formatter(EngFormatter())
        if 1 < len(curves) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure


def _tell(axes: Axes, curve: BudgetCurve, theme: Theme) -> None:
    """Draw the points of a curve once more, each of which says what it is."""
    look, places = theme.looks[curve.variant], _places(curve)
    for point in curve.points:
        (mark,) = axes.plot(
            [point.budget], [point.effect], ls="none", color=look.colour, marker=look.marker, ms=5
        )
        says = f"{curve.variant} v {curve.baseline}, at {spent(point.budget, curve.unit)}: "
        live.tell(mark, says + _in_figures(point, places), theme.variant(curve.variant))
