"""Figures as inline SVG: text as text, colours that follow the page, no two ids alike.

Every figure states its finding in ``<title>`` and says in ``<desc>`` where the numbers stand.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"
"""Drawn where the page's own text colour is meant, and replaced by it."""
MARKERS = "osD^vPX*"
STYLES = ("-", "--", "-.", ":")
COLOURS = sns.color_palette("colorblind", 8).as_hex()
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sagan_bench",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Look(NamedTuple):
    """How a variant is drawn everywhere: colour and, beside it, a marker and a line style."""

    colour: str
    marker: str
    line: str


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return a look for each variant; colour, marker and line style never repeat together."""
    return {
        name: Look(
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            STYLES[(i // len(COLOURS) + i) % len(STYLES)],
        )
        for i, name in enumerate(variants)
    }


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        yield figure, figure.subplots()


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """Return the figure as SVG to be put into a page, with ids of its own.

    Args:
        figure: drawn within `STYLE`.
        name: unique in the page.
        title: the finding.
        description: what is drawn.
    """
    written = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    text = text.replace("*{", f"#{name} *{{").replace(INK, "currentColor")
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    head = (
        f'<svg id="{name}" role="img" aria-labelledby="{name}-t {name}-d" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :]


Values = Mapping[str, Mapping[int, float | None]]


def strip(values: Values, label: str, baseline: str | None, look: Mapping[str, Look]) -> Figure:
    """Every seed as a point, a bar at the median, and the baseline's range as a band."""
    names = list(values)
    with _axes(6.4, 0.9 + 0.42 * len(names)) as (figure, axes):
        known = {n: [v for v in values[n].values() if v is not None] for n in names}
        if baseline and known.get(baseline):
            axes.axvspan(min(known[baseline]), max(known[baseline]), color=INK, alpha=0.08, lw=0)
        for row, name in enumerate(names):
            points = sorted(known[name])
            shifts = [0.12 * ((i % 3) - 1) for i in range(len(points))]
            axes.plot(
                points, [row + s for s in shifts], linestyle="none", marker=look[name].marker,
                color=look[name].colour, markersize=6, markeredgecolor=INK, markeredgewidth=0.4,
            )  # fmt: skip
            if points:
                middle = points[len(points) // 2] if len(points) % 2 else (
                    points[len(points) // 2 - 1] + points[len(points) // 2]) / 2  # fmt: skip
                axes.plot([middle, middle], [row - 0.3, row + 0.3], color=INK, linewidth=1.6)
        _rows(axes, names)
        axes.set_xlabel(label)
    return figure


def forest(
    rows: Sequence[tuple[str, float, tuple[float, float] | None, str]],
    label: str,
    min_effect: float,
    look: Mapping[str, Look],
) -> Figure:
    """Each difference with its simultaneous interval, over the band that does not matter."""
    with _axes(6.4, 1.0 + 0.42 * len(rows)) as (figure, axes):
        axes.axvspan(-min_effect, min_effect, color=INK, alpha=0.08, lw=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, (name, effect, interval, variant) in enumerate(rows):
            if interval:
                axes.plot(interval, [row, row], color=look[variant].colour, linewidth=2)
            axes.plot(
                [effect], [row], marker=look[variant].marker, color=look[variant].colour,
                markersize=7, markeredgecolor=INK, markeredgewidth=0.4,
            )  # fmt: skip
        _rows(axes, [name for name, *_ in rows])
        axes.set_xlabel(label)
    return figure


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


Curve = tuple[str, int, Sequence[int], Sequence[float | None]]
"""Variant, seed, steps, values."""


def curves(found: Sequence[Curve], label: str, look: Mapping[str, Look]) -> Figure:
    """One thin line a seed, and the median of the seeds as a thick one."""
    with _axes(6.4, 3.0) as (figure, axes):
        for variant in dict.fromkeys(one[0] for one in found):
            own = [one for one in found if one[0] == variant]
            style = look[variant]
            for _, _, steps, values in own:
                axes.plot(steps, _gaps(values), color=style.colour, linewidth=0.7, alpha=0.45)
            middle = _median(own)
            axes.plot(
                list(middle), list(middle.values()), color=style.colour, linestyle=style.line,
                linewidth=2, marker=style.marker, markevery=max(1, len(middle) // 6), markersize=5,
                label=variant,
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="best", fontsize=9)
    return figure


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _median(found: Sequence[Curve]) -> dict[int, float]:
    """Return the median over the seeds at the steps that all have."""
    by_seed = [dict(zip(steps, values, strict=True)) for _, _, steps, values in found]
    shared = [step for step in by_seed[0] if all(one.get(step) is not None for one in by_seed)]
    middle = {}
    for step in shared:
        ordered = sorted(float(one[step] or 0) for one in by_seed)
        half = len(ordered) // 2
        middle[step] = ordered[half] if len(ordered) % 2 else sum(ordered[half - 1 : half + 1]) / 2
    return middle


def cost(
    points: Sequence[tuple[str, float, float]], x: str, y: str, look: Mapping[str, Look]
) -> Figure:
    """Each run's cost against its quality."""
    with _axes(6.4, 3.0) as (figure, axes):
        for variant in dict.fromkeys(name for name, *_ in points):
            own = [(a, b) for name, a, b in points if name == variant]
            axes.plot(
                [a for a, _ in own], [b for _, b in own], linestyle="none",
                marker=look[variant].marker, color=look[variant].colour, label=variant,
                markeredgecolor=INK, markeredgewidth=0.4,
            )  # fmt: skip
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(loc="best", fontsize=9)
    return figure


def heat(
    cells: Mapping[tuple[str, str], float], rows: Sequence[str], columns: Sequence[str], label: str
) -> Figure:
    """A map of means, the number written into each cell."""
    table = [[cells.get((row, column), float("nan")) for column in columns] for row in rows]
    with _axes(1.6 + 1.3 * len(columns), 1.0 + 0.5 * len(rows)) as (figure, axes):
        sns.heatmap(
            table, annot=True, fmt=".3g", cmap="cividis", ax=axes, linewidths=1,
            xticklabels=list(columns), yticklabels=list(rows), cbar_kws={"label": label},
        )  # fmt: skip
        axes.tick_params(axis="y", rotation=0)
    return figure


Draw = Callable[[], Figure]
