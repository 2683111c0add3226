"""Figures as inline SVG: text as text, colours that follow the page, no two ids alike.

Every figure states its finding in ``<title>`` and says in ``<desc>`` what is drawn.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any, NamedTuple

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"
"""Drawn where the page's own text colour is meant, and replaced by it."""
COLOURS = (
    "#0173b2", "#d55e00", "#029e73", "#a8449a", "#946000", "#6b6b6b", "#c2185b", "#5b4fc4",
)  # fmt: skip
"""Seaborn's ``colorblind`` where 3:1 on white allows it; the stylesheet has a dark twin of each."""
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
WIDTH_IN = 4.8
"""Of every figure: as wide as a telephone, so that its text can be read there."""
FEW = len(COLOURS)
"""Variants that one panel can tell apart; more get a panel each."""
NAME_CHARS, LINE_CHARS = 48, 22
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sagan_bench",
    "text.parse_math": False,
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
EDGE: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.5}


class Look(NamedTuple):
    """How a variant is drawn everywhere: colour and, beside it, a marker and dashes."""

    colour: str
    marker: str
    dashes: str


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return a look for each variant; the first 64 are all different."""
    return {
        name: Look(
            COLOURS[i % len(COLOURS)],
            MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            DASHES[i % len(DASHES)],
        )
        for i, name in enumerate(variants)
    }


def wrapped(name: str, chars: int = LINE_CHARS) -> str:
    """Return a name in lines of so many characters, short enough for an axis."""
    short = name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"
    lines = textwrap.wrap(short.replace("+", "+ "), chars)
    return "\n".join(line.replace("+ ", "+") for line in lines) or "?"


@contextmanager
def panel(height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure of one panel, so many inches high, within `STYLE`."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH_IN, height), layout="constrained")
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
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    head = (
        f'<svg id="{name}" role="img" aria-labelledby="{name}-t {name}-d" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>'
    )
    return head + _of_page(text[text.index(">") + 1 :], name)


def _of_page(text: str, name: str) -> str:
    """Make the inside of an SVG one of the page: its ids, its colours, and no needless digits."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    # The page has its own font.
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "sans-serif", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, text)
    text = text.replace("*{", f"#{name} *{{").replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS, start=1):
        text = text.replace(colour, f"var(--s{number})")
    return text


def _rounded(attribute: re.Match[str]) -> str:
    values = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.5g}", attribute[0])
    return re.sub(r"\s+", " ", values)


# --- Every run ---------------------------------------------------------------------------------

Values = Mapping[str, Mapping[int, float | None]]
"""Variant -> training seed -> value."""


def strip(values: Values, label: str, baseline: str | None, look: Mapping[str, Look]) -> Figure:
    """Every seed as a point, a bar at the median, and the baseline's range as a band."""
    known = {name: [v for v in of.values() if v is not None] for name, of in values.items()}
    with panel(_height(list(values))) as (figure, axes):
        if baseline and known.get(baseline):
            axes.axvspan(min(known[baseline]), max(known[baseline]), color=INK, alpha=0.08, lw=0)
        for row, (name, of) in enumerate(known.items()):
            _points(axes, row, sorted(of), look[name])
        _rows(axes, list(values))
        axes.set_xlabel(label)
    return figure


def _points(axes: Axes, row: int, values: Sequence[float], look: Look) -> None:
    shifts = [0.14 * ((i % 3) - 1) for i in range(len(values))]
    rows = [row + shift for shift in shifts]
    axes.plot(values, rows, ls="none", marker=look.marker, color=look.colour, ms=6, **EDGE)
    if values:
        axes.plot([median(values)] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=1.8)


@dataclass(frozen=True)
class Effect:
    """One line of a forest plot."""

    name: str
    variant: str
    effect: float
    interval: tuple[float, float] | None


def forest(
    rows: Sequence[Effect], label: str, min_effect: float, look: Mapping[str, Look]
) -> Figure:
    """Each difference with its simultaneous interval, over the band that does not matter."""
    names = [one.name for one in rows]
    with panel(_height(names)) as (figure, axes):
        axes.axvspan(-min_effect, min_effect, color=INK, alpha=0.08, lw=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, one in enumerate(rows):
            style = look[one.variant]
            if one.interval:
                axes.plot(one.interval, [row, row], color=style.colour, linewidth=2.4)
                axes.plot(one.interval, [row, row], ls="none", marker="|", color=style.colour, ms=9)
            axes.plot([one.effect], [row], marker=style.marker, color=style.colour, ms=8, **EDGE)
        _rows(axes, names)
        axes.set_xlabel(label)
    return figure


def _height(names: Sequence[str]) -> float:
    lines = sum(max(2, wrapped(name).count("\n") + 1.6) for name in names)
    return 0.65 + 0.21 * lines


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))


# --- Curves ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The curves of one variant's seeds, of one block if it is about blocks."""

    label: str
    variant: str
    dashes: str
    seeds: tuple[tuple[Sequence[int], Sequence[float | None]], ...]

    def middle(self) -> dict[int, float]:
        """Return the median over the seeds at the steps at which most have a value."""
        by_step: dict[int, list[float]] = {}
        for steps, values in self.seeds:
            for step, value in zip(steps, values, strict=True):
                if value is not None:
                    by_step.setdefault(step, []).append(value)
        return {
            step: median(values)
            for step, values in sorted(by_step.items())
            if 2 * len(values) > len(self.seeds)
        }


def curves(lines: Sequence[Line], label: str, look: Mapping[str, Look]) -> Figure:
    """One thin line a seed and a thick one for their median; many variants have a panel each."""
    variants = list(dict.fromkeys(line.variant for line in lines))
    if len(variants) > FEW:
        return _panels(lines, variants, label, look)
    columns = 1 if any(len(line.label) > LINE_CHARS for line in lines) else 2
    with panel(2.6 + 0.19 * -(-len(lines) // columns)) as (figure, axes):
        for line in lines:
            _line(axes, line, look[line.variant])
        _steps(axes)
        axes.set_title(label, loc="left", fontsize="medium")
        figure.legend(loc="outside lower center", ncols=columns, fontsize=9.5, handlelength=3)
    return figure


def _line(axes: Axes, line: Line, look: Look) -> None:
    steps, values = _together(line.seeds)
    axes.plot(steps, values, color=look.colour, linewidth=0.6, alpha=0.4)
    middle = line.middle()
    axes.plot(
        list(middle), list(middle.values()), color=look.colour, linestyle=line.dashes,
        linewidth=1.8, marker=look.marker, markevery=max(1, len(middle) // 5), ms=4.5,
        label=_short(line.label, NAME_CHARS), **EDGE,
    )  # fmt: skip


def _panels(
    lines: Sequence[Line], variants: Sequence[str], label: str, look: Mapping[str, Look]
) -> Figure:
    columns, rows = 3, -(-len(variants) // 3)
    height = 0.95 + 1.05 * rows
    with mpl.rc_context({**STYLE, "font.size": 7}):
        figure = Figure((WIDTH_IN, height))
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.12, right=0.98, top=1 - 0.5 / height, bottom=0.45 / height, hspace=0.4,
            wspace=0.12,
        )  # fmt: skip
        for axes, variant in zip(grid.flat, variants, strict=False):
            axes.set_title(_short(variant, 24), fontsize=7, loc="left", pad=2)
            for line in lines:
                if line.variant == variant:
                    _line(axes, line, look[variant])
            axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(3))
        for axes in grid.flat[len(variants) :]:
            axes.set_visible(False)
        figure.suptitle(label, fontsize=9, x=0.02, y=1 - 0.05 / height, ha="left", va="top")
        figure.supxlabel("step", fontsize=8, y=0.05 / height)
    return figure


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _steps(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _together(
    seeds: Sequence[tuple[Sequence[int], Sequence[float | None]]],
) -> tuple[list[float], list[float]]:
    """Return all seeds' curves as one, with gaps between them and where a value is missing."""
    x, y = list[float](), list[float]()
    for steps, values in seeds:
        x += [*steps, steps[-1]]
        y += [*(math.nan if value is None else value for value in values), math.nan]
    return x, y


# --- Cost and factors ---------------------------------------------------------------------------


def cost(
    points: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, look: Mapping[str, Look]
) -> Figure:
    """Each run's cost against its quality."""
    with panel(3.0 if len(points) > FEW else 2.6 + 0.19 * -(-len(points) // 2)) as (figure, axes):
        for name, own in points.items():
            axes.plot(
                [a for a, _ in own], [b for _, b in own], ls="none", marker=look[name].marker,
                color=look[name].colour, ms=5.5, label=_short(name, LINE_CHARS), **EDGE,
            )  # fmt: skip
        axes.set_xlabel(x)
        axes.set_title(y, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if len(points) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure


def heat(
    cells: Mapping[tuple[str, str], float], rows: Sequence[str], columns: Sequence[str], label: str
) -> Figure:
    """A map of means, the number written into each cell."""
    table = [[cells.get((row, column), float("nan")) for column in columns] for row in rows]
    with panel(1.0 + 0.45 * len(rows)) as (figure, axes):
        sns.heatmap(
            table, annot=True, fmt=".3g", cmap="cividis", ax=axes, linewidths=1,
            xticklabels=list(columns), yticklabels=[wrapped(row) for row in rows],
            cbar_kws={"label": label},
        )  # fmt: skip
        axes.tick_params(axis="y", rotation=0)
        axes.grid(visible=False)
    return figure
