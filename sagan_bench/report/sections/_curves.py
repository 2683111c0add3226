"""Curves over training: what is kept of them, and how they are drawn."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.metrics import leading
from sagan_bench.report import live
from sagan_bench.report.document import Series
from sagan_bench.report.formats import decimals, listed, number
from sagan_bench.report.svg import (
    DASHES,
    EDGE,
    FEW,
    LINE_CHARS,
    NAME_CHARS,
    STYLE,
    WIDTH_IN,
    Drawn,
    Look,
    Theme,
    drawn,
    shortened,
)
from sagan_bench.runs.rows import DIAGNOSTICS, METRICS, read_rows
from sagan_bench.runs.run import Run

_log = logging.getLogger(__name__)

POINTS = (25, 200)
"""Of a curve at least and at most; more cannot be told apart on a page."""
POINTS_IN_ALL = 12_000
"""Of one figure, over all runs."""
LOSSES = ("loss_d", "loss_g")
NETWORKS = {"generator": "G", "discriminator": "D"}


# --- What is kept ------------------------------------------------------------------------------


def series(primary: str, runs: Sequence[Run]) -> Iterator[Series]:
    """Yield the curves of runs, thinned: scores on the way, losses, and readings of blocks."""
    least, most = POINTS
    points = max(least, min(most, POINTS_IN_ALL // len(runs)))
    for run in runs:
        theirs = run.program.better if run.program else {}
        metrics = dict.fromkeys((primary, *leading(), *theirs))
        for name, curve in _curves(run, metrics):
            steps, values = zip(*_thinned(curve, points), strict=True)
            yield Series(
                name=name,
                variant=run.variant,
                seed=run.seed,
                steps=steps,
                values=tuple(None if value is None else float(f"{value:.5g}") for value in values),
            )


def _curves(run: Run, metrics: Iterable[str]) -> Iterator[tuple[str, Sequence[tuple[int, Any]]]]:
    for metric in metrics:
        if curve := run.curve(metric):
            yield metric, curve
    rows = _rows(run, METRICS)
    gammas = [name for name in rows[-1] if name.startswith("gamma.")] if rows else []
    for name in (*LOSSES, *gammas) if rows else ():
        yield name, [(row["step"], _figure(row.get(name))) for row in rows]
    looks = _rows(run, DIAGNOSTICS)
    for block in [name for name in looks[-1] if name != "step"] if looks else []:
        read = [(row["step"], of) for row in looks if isinstance(of := row.get(block), dict)]
        for reading, figure in READINGS.items():
            points = [(step, figure(of)) for step, of in read]
            if any(value is not None for _, value in points):
                yield f"{reading}.{block}", points


def _rows(run: Run, name: str) -> list[dict[str, Any]]:
    """Return rows of a run; none, which is logged, if they are damaged."""
    try:
        return read_rows(run.path, name, run.record)
    except UserError as error:
        _log.warning("left out of the report: %s", error)
        return []


def _figure(value: Any) -> float | None:
    """Return a value of a row if it is one number."""
    return value if isinstance(value, int | float) else None


def _entropy_share(of: Mapping[str, Any]) -> float | None:
    """Return what a block's entropy is of that of uniform weights."""
    entropy, most = _figure(of.get("entropy")), _figure(of.get("entropy_max"))
    return entropy / most if entropy is not None and most else None


READINGS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    **{
        name: lambda of, name=name: _figure(of.get(name))  # type: ignore[misc]
        for name in ("ratio", "entropy", "distance_px", "largest_logit", "mass", "chance")
    },
    "entropy_share": _entropy_share,
}
"""Of a block, by the name of its curve: the figure of a row of diagnostics."""


def _thinned(points: Sequence[tuple[int, Any]], most: int) -> Sequence[tuple[int, Any]]:
    """Return at most so many of the points, the last among them."""
    every = -(-len(points) // most)
    return points[::-1][::every][::-1]


# --- How they are drawn ------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The curves of one variant's seeds, of one block if it is about blocks."""

    label: str
    variant: str
    dashes: str
    seeds: tuple[Series, ...]
    network: str = ""

    def middle(self) -> dict[int, float]:
        """Return the median over the seeds at the steps at which most have a value."""
        by_step: dict[int, list[float]] = {}
        for run in self.seeds:
            for step, value in zip(run.steps, run.values, strict=True):
                if value is not None:
                    by_step.setdefault(step, []).append(value)
        return {
            step: median(values)
            for step, values in sorted(by_step.items())
            if 2 * len(values) > len(self.seeds)
        }


def charts(
    series: Iterable[Series], name: str, label: str, theme: Theme, caption: str
) -> Iterator[Drawn]:
    """Yield a figure of the curves of a name, of all blocks if it is a reading of theirs."""
    own = [s for s in series if s.name == name or s.name.startswith(f"{name}.")]
    lines = [line for variant in theme.looks for line in _lines(own, variant, theme.looks[variant])]
    ends = {line.label: values[-1] for line in lines if (values := [*line.middle().values()])}
    if ends:
        level = decimals(ends.values())
        finding = listed(f"{of} {number(value, level)}" for of, value in ends.items())
        title = f"{label}, at the end: {finding}"
        if len({line.variant for line in lines}) > FEW and any(line.network for line in lines):
            caption += " Solid: G; dashed: D."
        yield drawn(curves(lines, label, theme), name, title, caption)


def _lines(series: Sequence[Series], variant: str, look: Look) -> Iterator[Line]:
    own = [curve for curve in series if curve.variant == variant]
    taken = Counter[str]()
    for name in dict.fromkeys(curve.name for curve in own):
        reading, _, block = name.partition(".")
        seeds = [curve for curve in own if curve.name == name]
        if reading == "gamma":
            seeds = [_unsigned(curve) for curve in seeds]
        network, _, place = block.partition(".")
        nth = taken[network] + (network == "discriminator")
        dashes = DASHES[nth % len(DASHES)] if block else look.dashes
        taken[network] += 1
        label = f"{variant}, {NETWORKS.get(network, network)} {place}" if block else variant
        yield Line(label, variant, dashes, tuple(seeds), network)


def _unsigned(curve: Series) -> Series:
    """Return gammas without their signs, which mean nothing: -gamma and -o are the same block."""
    values = tuple(None if value is None else abs(value) for value in curve.values)
    return curve.model_copy(update={"values": values})


def curves(lines: Sequence[Line], label: str, theme: Theme) -> Figure:
    """One thin line a seed and a thick one for their median; G above D.

    Many variants have a panel each, in which D is dashed.
    """
    variants = list(dict.fromkeys(line.variant for line in lines))
    if len(variants) > FEW:
        return _panels(lines, variants, label, theme)
    columns = 1 if any(len(line.label) > LINE_CHARS for line in lines) else 2
    networks = list(dict.fromkeys(line.network for line in lines))
    height = 0.5 + 2.1 * len(networks) + 0.19 * -(-len(lines) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH_IN, height), layout="constrained")
        rows = figure.subplots(len(networks), sharex=True, squeeze=False)[:, 0]
        for axes, network in zip(rows, networks, strict=True):
            for line in lines:
                if line.network == network:
                    _line(axes, line, theme)
            whose = f", {NETWORKS.get(network, network)}" if network else ""
            axes.set_title(f"{label}{whose}", loc="left", fontsize="medium")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(loc="outside lower center", ncols=columns, fontsize=9.5, handlelength=3)
    return figure


def _line(axes: Axes, line: Line, theme: Theme) -> None:
    look = theme.looks[line.variant]
    for run in line.seeds:
        _curve(axes, line, run, theme)
    middle = line.middle()
    axes.plot(
        list(middle), list(middle.values()), color=look.colour, linestyle=line.dashes,
        linewidth=1.8, label=shortened(line.label, NAME_CHARS), marker=look.marker,
        markevery=max(1, len(middle) // 5), ms=4.5, **EDGE,
    )  # fmt: skip


def _curve(axes: Axes, line: Line, run: Series, theme: Theme) -> None:
    """Draw one run, with gaps where a value is missing, which says what it is."""
    values = [nan if value is None else value for value in run.values]
    colour = theme.looks[line.variant].colour
    (drawn,) = axes.plot(
        run.steps, values, color=colour, linestyle=line.dashes, linewidth=0.7, alpha=0.55
    )
    known = [step for step, value in zip(run.steps, run.values, strict=True) if value is not None]
    live.tell(drawn, f"{line.label}, seed {run.seed}", theme.run(run.variant, run.seed), known)


def _panels(lines: Sequence[Line], variants: Sequence[str], label: str, theme: Theme) -> Figure:
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
            axes.set_title(shortened(variant, 24), fontsize=7, loc="left", pad=2)
            for line in lines:
                if line.variant == variant:
                    _line(
                        axes, replace(line, dashes=DASHES[line.network == "discriminator"]), theme
                    )
            axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(3))
        for axes in grid.flat[len(variants) :]:
            axes.set_visible(False)
        figure.suptitle(label, fontsize=9, x=0.02, y=1 - 0.05 / height, ha="left", va="top")
        figure.supxlabel("step", fontsize=8, y=0.05 / height)
    return figure
