"""Each difference after every look of a study that grows until it is conclusive."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import live
from sagan_bench.report.courses import Course
from sagan_bench.report.courses import Look as Taken
from sagan_bench.report.document import Document, TuningDocument
from sagan_bench.report.formats import MISSING, decimals, many, number, span
from sagan_bench.report.frames import Cell, Column, Frame, Row, to_csv
from sagan_bench.report.sections._base import Block, Charts, Export, Section, Text
from sagan_bench.report.svg import (
    FEW,
    INK,
    LINE_CHARS,
    Drawn,
    Theme,
    drawn,
    panel,
    shortened,
)


def _columns(unit: str) -> tuple[Column, ...]:
    return (
        Column("pair", "Comparison", numeric=False),
        Column("n", f"{many(unit).capitalize()} a side"),
        Column("price", "Price", help="level of the interval at this look, fixed beforehand"),
        Column("interval", "Difference"),
        Column("verdict", "Verdict", numeric=False),
        Column("chance", "Chance", help="of a verdict at the horizon, as it seemed then"),
    )


@SECTIONS.register("looks")
class Looks(Section):
    """Each difference after every look of a study that grows until it is conclusive."""

    order = 12
    title = "Look by look"

    def render(self, document: Document | TuningDocument, theme: Theme) -> Iterator[Block]:
        """Yield where each pair stopped and why, and its intervals on the way."""
        courses = document.findings.courses
        if isinstance(document, TuningDocument):
            label, unit = document.findings.labels[0], "search"
        else:
            label, unit = document.findings.primary.label, "seed"
        taken = [course for course in courses if course.looks]
        if not courses:
            return
        said = [Text(course.sentence) for course in courses]
        charts = Charts([_drawn(taken, label, many(unit), theme)] if taken else [])
        caption = f"Every look, at the price that was fixed when the {document.kind} began"
        rows = [Row(_row(c, look, i)) for c in taken for i, look in enumerate(c.looks)]
        table = Frame("looks", caption, _columns(unit), rows)
        filed = [_filed(course, look) for course in taken for look in course.looks]
        files = (Export({"looks.csv": to_csv(filed)}, "each difference by look"),)
        yield self.block(*said, charts, table, exports=files if filed else ())


def _drawn(courses: Sequence[Course], label: str, units: str, theme: Theme) -> Drawn:
    figure = chart(courses, f"difference in {label}", units, theme)
    alt = "; ".join(course.sentence for course in courses)
    says = "Intervals of all looks and pairs hold at once with 95 %, whenever a study stops"
    return drawn(figure, "looks", alt, f"{says}; filled is where the pair stopped.")


def _row(course: Course, look: Taken, place: int) -> dict[str, Cell]:
    pair = f"{course.variant} v {course.baseline}"
    is_later = course.stopped is not None and place > course.stopped
    verdict = "after the stop" if is_later else look.verdict or "—"
    chance = Cell("—") if look.chance is None else Cell(f"{look.chance:.2g}", look.chance)
    return {
        "pair": Cell(pair),
        "n": Cell(f"{look.n}", look.n),
        "price": Cell(f"{look.price:.4f}", look.price),
        "interval": Cell(_in_figures(course, look), look.effect),
        "verdict": Cell(verdict),
        "chance": chance,
    }


def _in_figures(course: Course, look: Taken) -> str:
    if look.effect is None:
        return MISSING
    places = decimals([look.effect, course.margin or None])
    interval = f" {span(look.interval, places)}" if look.interval else ""
    return number(look.effect, places, signed=True) + interval


def _filed(course: Course, look: Taken) -> dict[str, object]:
    low, high = look.interval or (None, None)
    return {
        "variant": course.variant,
        "baseline": course.baseline,
        "n": look.n,
        "price": look.price,
        "effect": look.effect,
        "interval_low": low,
        "interval_high": high,
        "verdict": look.verdict,
        "chance": look.chance,
    }


def chart(courses: Sequence[Course], label: str, units: str, theme: Theme) -> Figure:
    """Each difference with its interval by look, over the band that does not matter.

    A pair has the look of its variant, or, where another has that, of its baseline.
    """
    drawn_as = dict[str, Course]()
    with panel(2.6 if len(courses) <= FEW else 3.0) as (figure, axes):
        margins = {course.margin for course in courses}
        if len(margins) == 1:
            axes.axhspan(-min(margins), min(margins), color=INK, alpha=0.08, lw=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        shift = 0.3 if len(courses) > 1 else 0.0
        for place, course in enumerate(courses):
            first = drawn_as.setdefault(course.variant, course)
            look = theme.looks[course.variant if first is course else course.baseline]
            for i, taken in enumerate(course.looks):
                if taken.interval is None or taken.effect is None:
                    continue
                low, high = taken.interval
                at = taken.n + shift * (place - (len(courses) - 1) / 2)
                axes.plot([at, at], [low, high], color=look.colour, lw=1.6)
                face = look.colour if i == course.stopped else "none"
                (point,) = axes.plot(
                    [at], [taken.effect], color=look.colour, marker=look.marker, ms=6, ls="",
                    markerfacecolor=face,
                )  # fmt: skip
                pair = f"{course.variant} v {course.baseline}"
                says = f"{pair}, {taken.n} {units} a side: {_in_figures(course, taken)}"
                live.tell(point, says)
            axes.plot(
                [], [], color=look.colour, marker=look.marker, ms=6,
                label=shortened(f"{course.variant} v {course.baseline}", LINE_CHARS),
            )  # fmt: skip
        seeds = sorted({taken.n for course in courses for taken in course.looks})
        axes.set_xticks(seeds)
        axes.set_xlim(seeds[0] - 1, seeds[-1] + 1)
        axes.set_xlabel(f"{units} a side")
        axes.set_title(label, loc="left", fontsize="medium")
        if 1 < len(courses) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure
