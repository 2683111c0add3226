"""The figures of a search: its history, its parameters, its front, its best on fresh seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.experiments.tuning.confirmation import Candidate
from sagan_bench.experiments.tuning.searched import Axis, SearchFindings
from sagan_bench.experiments.tuning.trials import Trial
from sagan_bench.report.answers import role
from sagan_bench.report.document import TuningFindings
from sagan_bench.report.formats import number, plural, short, shown
from sagan_bench.report.svg import COLOURS, EDGE, INK, MARKERS, Drawn, drawn, panel, wrapped
from sagan_bench.report.text import ARROWS

OUTCOMES = {"complete": "o", "pruned": "v", "diverged": "X"}
"""Those that are drawn, and their markers."""
NAME_CHARS = 24
"""Of a parameter in a line: attention.discriminator has as many but one."""
FAINT: dict[str, Any] = {"color": INK, "alpha": 0.22, "linewidth": 0.8}


# --- History -----------------------------------------------------------------------------------


def history(search: SearchFindings, label: str) -> Figure:
    """Each trial of a search, the best so far, and what the winner is worth on fresh seeds."""
    with panel(3.0) as (figure, axes):
        for colour, (outcome, marker) in zip(COLOURS, OUTCOMES.items(), strict=False):
            own = [(t.number, _reached(t)) for t in search.trials if t.outcome == outcome]
            _outcomes(axes, own, marker, colour, outcome)
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
    axes: Axes, own: Sequence[tuple[int, float | None]], marker: str, colour: str, name: str
) -> None:
    """Draw the trials of one outcome; those without a value at the upper edge."""
    known = [(x, y) for x, y in own if y is not None]
    lost = [x for x, y in own if y is None]
    style: dict[str, Any] = {"ls": "none", "marker": marker, "color": colour, "ms": 6, **EDGE}
    if known:
        axes.plot(*zip(*known, strict=True), label=name, **style)
    if lost:
        edge = axes.get_xaxis_transform()
        label = None if known else f"{name} (no value)"
        axes.plot(lost, [1.0] * len(lost), transform=edge, clip_on=False, label=label, **style)


# --- Parallel coordinates ----------------------------------------------------------------------


def coordinates(search: SearchFindings, label: str) -> Figure:
    """Parallel coordinates from top to bottom, a row a parameter, the objective as the last.

    Trials without a value end above the objective; the best lie on top, and are named.
    """
    values = [trial.values[0] for trial in search.trials if trial.values]
    best = sorted((c.number for c in search.candidates), key=str)
    rows, low, high = len(search.axes) + 1, min(values), max(values)
    with panel(0.9 + 0.42 * rows + 0.1 * len(best)) as (figure, axes):
        order = {number: place for place, number in enumerate(best, 1)}
        for trial in sorted(search.trials, key=lambda t: order.get(t.number, 0)):
            xs = [_place(axis, trial.params.get(axis.key)) for axis in search.axes]
            xs.append(_share(trial.values[0] if trial.values else None, low, high))
            axes.plot(xs, range(rows), **_strand(trial.number, best))
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


# --- Several objectives ------------------------------------------------------------------------


def pareto(
    points: Mapping[int, tuple[float, float]], front: Sequence[int], first: str, second: str
) -> Figure:
    """Each trial by two objectives; those of the front numbered and joined."""
    with panel(3.0) as (figure, axes):
        axes.plot(
            [x for x, _ in points.values()], [y for _, y in points.values()], ls="none",
            marker="o", color=COLOURS[5], ms=5, label="trial", **EDGE,
        )  # fmt: skip
        best = sorted((points[number], number) for number in front)
        axes.plot(
            [x for (x, _), _ in best], [y for (_, y), _ in best], ls="--", marker="s",
            color=COLOURS[0], ms=6, label="on the front", **EDGE,
        )  # fmt: skip
        for place, number in best:
            axes.annotate(str(number), place, (5, 5), textcoords="offset points", fontsize=8)
        axes.set_xlabel(first)
        axes.set_title(second, loc="left", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure


# --- The best on fresh seeds -------------------------------------------------------------------


def fresh(search: SearchFindings, label: str) -> Figure:
    """Each candidate's figure in the search beside those on sets A and B, a row each."""
    candidates = [candidate for candidate in search.candidates if candidate.on_a]
    kinds: tuple[tuple[str, str, str, list[list[float]]], ...] = (
        ("in the search", "o", COLOURS[5], [_known({0: c.searched}) for c in candidates]),
        ("set A", "s", COLOURS[0], [_known(c.on_a) for c in candidates]),
        ("set B", "D", COLOURS[1], [_known(c.on_b) for c in candidates]),
    )
    with panel(1.3 + 0.42 * len(candidates)) as (figure, axes):
        for i, (name, marker, colour, rows) in enumerate(kinds):
            place = 0.18 * (i - 1)
            points = [(value, row + place) for row, of in enumerate(rows) for value in of]
            if points:
                axes.plot(
                    *zip(*points, strict=True), ls="none", marker=marker, color=colour, ms=6,
                    label=name, **EDGE,
                )  # fmt: skip
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
        history(search, f"{label} {arrow}"),
        f"history-{place}",
        f"Best {label} of {plural(len(search.trials), 'trial')}: {number(best)}"
        + (f"; on fresh seeds {number(search.reported)}" if search.reported is not None else ""),
        "Every trial that ended, a pruned one at its last score; the line is the best so far, "
        "chosen by looking. Dashed: what the winner reaches on fresh seeds (set B).",
    )
    yield drawn(
        coordinates(search, f"{label} {arrow}"),
        f"coordinates-{place}",
        f"Parameters of {plural(len(search.trials), 'trial')}; the best are {_named(search)}",
        "Parallel coordinates: a line is a trial, a row a parameter with its bounds or choices, "
        "the last row the objective. Coloured: those trained again on fresh seeds.",
    )
    if len(numbers.labels) > 1:
        yield _pareto(place, search, numbers)
    again = [_again(candidate, search) for candidate in search.candidates if candidate.on_a]
    if again:
        yield drawn(
            fresh(search, f"{label} {arrow}"),
            f"fresh-{place}",
            f"{label} in the search and on fresh seeds: {'; '.join(again)}",
            "What a search says of its best trials, and what they reach at seeds it never saw. "
            "Chosen on set A, reported on set B.",
        )


def _pareto(place: int, search: SearchFindings, numbers: TuningFindings) -> Drawn:
    points = {t.number: (t.values[0], t.values[1]) for t in search.trials if t.values}
    first, second = (
        f"{label} {ARROWS[better]}"
        for label, better in list(zip(numbers.labels, numbers.better, strict=True))[:2]
    )
    return drawn(
        pareto(points, search.front, first, second),
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


def _known(runs: Mapping[int, float | None]) -> list[float]:
    return [value for value in runs.values() if value is not None]
