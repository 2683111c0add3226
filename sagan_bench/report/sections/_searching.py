"""The figures of a search: its history, its parameters, its front, its best on fresh seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.experiments.tuning.confirmation import Candidate
from sagan_bench.experiments.tuning.searched import Axis, SearchFindings
from sagan_bench.experiments.tuning.trials import Trial
from sagan_bench.report import live
from sagan_bench.report.answers import role
from sagan_bench.report.document import TuningFindings
from sagan_bench.report.formats import number, plural, short, shown
from sagan_bench.report.svg import (
    COLOURS,
    EDGE,
    INK,
    MARKERS,
    STYLE,
    WIDTH_IN,
    Drawn,
    drawn,
    panel,
    wrapped,
)
from sagan_bench.report.text import ARROWS

BySeed = Mapping[Any, float | None]
OUTCOMES = {"complete": "o", "pruned": "v", "diverged": "X"}
"""Those that are drawn, and their markers."""
NAME_CHARS = 24
"""Of a parameter in a line: attention.discriminator has as many but one."""
FAINT: dict[str, Any] = {"color": INK, "alpha": 0.22, "linewidth": 0.8}


# --- History -----------------------------------------------------------------------------------


def trial_row(place: int, number: int | None) -> str:
    """Return the id of the row of a trial of the so many-th search of a page."""
    return f"trial-{place}-{number}"


def history(place: int, search: SearchFindings, label: str) -> Figure:
    """Each trial of a search, the best so far, and what the winner is worth on fresh seeds."""
    with panel(3.0) as (figure, axes):
        for colour, (outcome, marker) in zip(COLOURS, OUTCOMES.items(), strict=False):
            own = [trial for trial in search.trials if trial.outcome == outcome]
            _outcomes(axes, own, place, marker, colour, outcome)
        steps: dict[str, Any] = {"where": "post", "color": INK, "linewidth": 1.2}
        axes.step(*zip(*search.best_so_far, strict=True), label="best so far", **steps)
        if search.reported is not None:
            axes.axhline(
                search.reported, color=INK, ls="--", linewidth=1, label="the winner on set B"
            )
        axes.set_xlabel("trial")
        axes.set_title(label, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(loc="outside lower center", ncols=2, fontsize=9.5, handlelength=3)
    return figure


def _reached(trial: Trial) -> float | None:
    """Return a trial's value, of a pruned one its last; None if it diverged before it had any."""
    if trial.values:
        return trial.values[0]
    return trial.curve[-1][1] if trial.curve else None


def _outcomes(
    axes: Axes, own: Sequence[Trial], place: int, marker: str, colour: str, name: str
) -> None:
    """Draw the trials of one outcome; those without a value at the upper edge."""
    style: dict[str, Any] = {"ls": "none", "marker": marker, "color": colour, "ms": 6, **EDGE}
    for trial in own:
        x, y = trial.number, _reached(trial)
        if y is None:
            edge = axes.get_xaxis_transform()
            (point,) = axes.plot([x], [1.0], transform=edge, clip_on=False, **style)
        else:
            (point,) = axes.plot([x], [y], **style)
        live.tell(point, f"trial {x}, {name}: {number(y)}", trial_row(place, x))
    if own:
        without = " (no value)" if all(_reached(trial) is None for trial in own) else ""
        axes.plot([], [], label=f"{name}{without}", **style)


# --- Parallel coordinates ----------------------------------------------------------------------


def coordinates(place: int, search: SearchFindings, label: str) -> Figure:
    """Parallel coordinates from top to bottom, a row a parameter, the objective as the last.

    Trials without a value end above the objective; the best lie on top, and are named.
    """
    values = [trial.values[0] for trial in search.trials if trial.values]
    best = sorted((c.number for c in search.candidates), key=str)
    rows, low, high = len(search.axes) + 1, min(values), max(values)
    with panel(0.9 + 0.42 * rows + 0.1 * len(best)) as (figure, axes):
        order = {trial: rank for rank, trial in enumerate(best, 1)}
        for trial in sorted(search.trials, key=lambda t: order.get(t.number, 0)):
            xs = [_place(axis, trial.params.get(axis.key)) for axis in search.axes]
            xs.append(_share(trial.values[0] if trial.values else None, low, high))
            (strand,) = axes.plot(xs, range(rows), **_strand(trial.number, best))
            value = number(trial.values[0] if trial.values else None)
            says = f"trial {trial.number}: {value}"
            live.tell(strand, says, trial_row(place, trial.number))
        for row, axis in enumerate(search.axes):
            _ticks(axes, row, axis)
        _ends(axes, rows - 1, f"{low:.4g}", f"{high:.4g}")
        names = [wrapped(short(axis.key), NAME_CHARS) for axis in search.axes]
        axes.set_yticks(range(rows), [*names, wrapped(label)])
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlim(-0.24, 1.24)
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])
        axes.grid(visible=True, axis="y")
        axes.spines[["bottom", "left"]].set_visible(False)
        if best:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5, handlelength=3)
    return figure


def _strand(number: int, best: Sequence[int]) -> dict[str, Any]:
    """Return how the line of a trial looks: one of the best, or of the many."""
    if number not in best:
        return FAINT
    i = best.index(number)
    look = {"color": COLOURS[i], "marker": MARKERS[i], "linewidth": 1.8, "ms": 6, **EDGE}
    return {"label": f"trial {number}", **look}


def _place(axis: Axis, value: Any) -> float:
    """Return where a value lies on its axis, from 0 to 1; not a number where there is none."""
    if value is None:
        return math.nan
    if axis.scale == "categorical":
        return axis.choices.index(value) / (len(axis.choices) - 1)
    low, high, value = float(axis.low or 0), float(axis.high or 0), float(value)
    if axis.scale == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return _share(value, low, high)


def _share(value: float | None, low: float, high: float) -> float:
    if value is None:
        return math.nan
    return (value - low) / (high - low) if high > low else 0.5


def _ticks(axes: Axes, row: int, axis: Axis) -> None:
    """Write an axis's bounds beside it; of choices those between below it."""
    if axis.scale != "categorical":
        _ends(axes, row, f"{axis.low:.4g}", f"{axis.high:.4g}")
        return
    low, *between, high = map(shown, axis.choices)
    _ends(axes, row, low, high)
    for i, text in enumerate(between, 1):
        place = i / (len(axis.choices) - 1)
        axes.text(place, row + 0.14, text, ha="center", va="top", fontsize=8)


def _ends(axes: Axes, row: int, low: str, high: str) -> None:
    axes.text(-0.04, row, low, ha="right", va="center", fontsize=8)
    axes.text(1.04, row, high, ha="left", va="center", fontsize=8)


# --- A parameter at a time ---------------------------------------------------------------------


def slices(place: int, search: SearchFindings, label: str) -> Figure:
    """The objective of each complete trial by each parameter, a panel a parameter."""
    columns, rows = 2, -(-len(search.axes) // 2)
    own = [trial for trial in search.trials if trial.values]
    with mpl.rc_context({**STYLE, "font.size": 9}):
        figure = Figure((WIDTH_IN, 0.5 + 1.35 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, axis in zip(grid.flat, search.axes, strict=False):
            _slice(axes, axis, own, place)
        for axes in grid.flat[len(search.axes) :]:
            axes.set_visible(False)
        figure.suptitle(label, fontsize="medium", x=0.02, ha="left")
    return figure


def _slice(axes: Axes, axis: Axis, own: Sequence[Trial], place: int) -> None:
    is_choice = axis.scale == "categorical"
    for trial in own:
        if (value := trial.params.get(axis.key)) is None or not trial.values:
            continue
        x = axis.choices.index(value) if is_choice else float(value)
        (point,) = axes.plot(
            [x], [trial.values[0]], marker="o", color=COLOURS[0], ms=4.5, ls="none", **EDGE
        )
        says = f"trial {trial.number}, {short(axis.key)} {_shown(value)}: {number(trial.values[0])}"
        live.tell(point, says, trial_row(place, trial.number))
    if is_choice:
        axes.set_xticks(range(len(axis.choices)), [*map(shown, axis.choices)])
        axes.set_xlim(-0.5, len(axis.choices) - 0.5)
    elif axis.scale == "log":
        low, high = float(axis.low or 0), float(axis.high or 0)
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [low, math.sqrt(low * high), high]
        axes.set_xticks(ticks, [f"{value:.2g}" for value in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(short(axis.key), fontsize="medium", loc="left")


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shown(value)


# --- Several objectives ------------------------------------------------------------------------


def pareto(
    place: int,
    points: Mapping[int, tuple[float, float]],
    front: Sequence[int],
    labels: Sequence[str],
) -> Figure:
    """Each trial by two objectives; those of the front numbered and joined."""
    first, second = labels
    style: dict[str, Any] = {"ls": "none", "marker": "o", "color": COLOURS[5], "ms": 5, **EDGE}
    with panel(3.0) as (figure, axes):
        for trial, (x, y) in points.items():
            (point,) = axes.plot([x], [y], **style)
            live.tell(point, f"trial {trial}: {number(x)}, {number(y)}", trial_row(place, trial))
        axes.plot([], [], label="trial", **style)
        best = sorted((points[trial], trial) for trial in front)
        axes.plot(
            [x for (x, _), _ in best], [y for (_, y), _ in best], ls="--", marker="s",
            color=COLOURS[0], ms=6, label="on the front", **EDGE,
        )  # fmt: skip
        for where, trial in best:
            axes.annotate(str(trial), where, (5, 5), textcoords="offset points", fontsize=8)
        axes.set_xlabel(first)
        axes.set_title(second, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure


# --- The best on fresh seeds -------------------------------------------------------------------


def fresh(place: int, search: SearchFindings, label: str) -> Figure:
    """Each candidate's figure in the search beside those on sets A and B, a row each."""
    candidates = [candidate for candidate in search.candidates if candidate.on_a]
    kinds: tuple[tuple[str, str, str, list[BySeed]], ...] = (
        ("in the search", "o", COLOURS[5], [{None: c.searched} for c in candidates]),
        ("set A", "s", COLOURS[0], [{**c.on_a} for c in candidates]),
        ("set B", "D", COLOURS[1], [{**c.on_b} for c in candidates]),
    )
    with panel(1.3 + 0.42 * len(candidates)) as (figure, axes):
        for i, (name, marker, colour, rows) in enumerate(kinds):
            style: dict[str, Any] = {"ls": "none", "marker": marker, "color": colour, "ms": 6}
            points = [(c, y, row) for y, (c, row) in enumerate(zip(candidates, rows, strict=True))]
            for candidate, y, by_seed in points:
                for seed, value in by_seed.items():
                    if value is not None:
                        (point,) = axes.plot([value], [y + 0.18 * (i - 1)], **style, **EDGE)
                        at = "" if seed is None else f", seed {seed}"
                        says = f"trial {candidate.number}, {name}{at}: {number(value)}"
                        live.tell(point, says, trial_row(place, candidate.number))
            if any(map(_known, rows)):
                axes.plot([], [], label=name, **style, **EDGE)
        axes.set_yticks(range(len(candidates)), [_name(c, search) for c in candidates])
        axes.set_ylim(len(candidates) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside lower center", ncols=3, fontsize=9.5)
    return figure


# --- What is drawn -----------------------------------------------------------------------------


def charts(place: int, search: SearchFindings, numbers: TuningFindings) -> Iterator[Drawn]:
    """Yield the figures of a search; none while no trial is complete."""
    label, arrow = numbers.labels[0], ARROWS[numbers.better[0]]
    if not search.best_so_far:
        return
    _, best = search.best_so_far[-1]
    yield drawn(
        history(place, search, f"{label} {arrow}"),
        f"history-{place}",
        f"Best {label} of {plural(len(search.trials), 'trial')}: {number(best)}"
        + (f"; on fresh seeds {number(search.reported)}" if search.reported is not None else ""),
        "Every trial that ended, a pruned one at its last score; the line is the best so far, "
        "chosen by looking. Dashed: what the winner reaches on fresh seeds (set B).",
    )
    yield drawn(
        coordinates(place, search, f"{label} {arrow}"),
        f"coordinates-{place}",
        f"Parameters of {plural(len(search.trials), 'trial')}; the best are {_named(search)}",
        "Parallel coordinates: a line is a trial, a row a parameter with its bounds or choices, "
        "the last row the objective. Coloured: those trained again on fresh seeds.",
    )
    if search.axes:
        yield drawn(
            slices(place, search, f"{label} {arrow}"),
            f"slices-{place}",
            f"{label} of {plural(len(search.trials), 'trial')} by each parameter",
            "A panel a parameter: every complete trial by the value that it had of it. All "
            "parameters vary at once, so that a trend may be another's.",
        )
    if len(numbers.labels) > 1:
        yield _pareto(place, search, numbers)
    again = [_again(candidate, search) for candidate in search.candidates if candidate.on_a]
    if again:
        yield drawn(
            fresh(place, search, f"{label} {arrow}"),
            f"fresh-{place}",
            f"{label} in the search and on fresh seeds: {'; '.join(again)}",
            "What a search says of its best trials, and what they reach at seeds it never saw. "
            "Chosen on set A, reported on set B.",
        )


def _pareto(place: int, search: SearchFindings, numbers: TuningFindings) -> Drawn:
    points = {t.number: (t.values[0], t.values[1]) for t in search.trials if t.values}
    labels = [
        f"{label} {ARROWS[better]}"
        for label, better in list(zip(numbers.labels, numbers.better, strict=True))[:2]
    ]
    return drawn(
        pareto(place, points, search.front, labels),
        f"front-{place}",
        f"On the Pareto front: trials {', '.join(map(str, search.front))}",
        "Every complete trial is a point; numbered are those that no other beats in all "
        "objectives. By the first objective three of them are trained again.",
    )


def _named(search: SearchFindings) -> str:
    return ", ".join(str(candidate.number) for candidate in search.candidates) or "not chosen yet"


def _again(candidate: Candidate, search: SearchFindings) -> str:
    sets = (("set A", _known(candidate.on_a)), ("set B", _known(candidate.on_b)))
    means = ", ".join(f"{name} {number(fmean(of))}" for name, of in sets if of)
    return f"{_name(candidate, search)} {number(candidate.searched)}, {means}"


def _name(candidate: Candidate, search: SearchFindings) -> str:
    return f"trial {candidate.number}{role(candidate, search)}"


def _known(runs: BySeed) -> list[float]:
    return [value for value in runs.values() if value is not None]
