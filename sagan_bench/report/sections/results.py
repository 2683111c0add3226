"""Every variant: figures, verdict and interval, and every run as a point."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sagan_bench.core.registry import METRICS, SECTIONS
from sagan_bench.evaluation.metrics import ordered
from sagan_bench.report import compared, live
from sagan_bench.report.answers import answer
from sagan_bench.report.claims import claim, places_of
from sagan_bench.report.document import Document
from sagan_bench.report.formats import MISSING, compact, decimals, duration, listed, number, span
from sagan_bench.report.frames import (
    Cell,
    Column,
    Frame,
    Row,
    Values,
    escaped,
    to_csv,
    to_latex,
    to_markdown,
)
from sagan_bench.report.readings import Reading
from sagan_bench.report.sections._base import Block, Charts, Export, Fold, Section, Text
from sagan_bench.report.svg import EDGE, INK, Drawn, Theme, drawn, panel, wrapped
from sagan_bench.report.text import ARROWS, Words
from sagan_bench.runs.program import PROGRAM
from sagan_bench.runs.records import Status

BySeed = Mapping[int, float]
NOTE = Markup(
    "↑ higher is better, ↓ lower is better, — not measured. Only the first metric decides; "
    '<a href="#method">Method</a> has the rule.'
)
SECONDARY = (
    Column("reading", "Reading", numeric=False),
    Column("pair", "Comparison", numeric=False),
    Column("metric", "Metric", lambda row: f"{row['label']} {ARROWS[row['better']]}", False),
    *(Column(column.key, column.title, column.show, places=2) for column in compared.EFFECT),
)


@SECTIONS.register("results")
class Results(Section):
    """Every variant: figures, verdict and interval, and every run as a point."""

    order = 10
    title = "Results"
    of = ("study",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return the names of metrics for readers, and the metrics of real against real images."""
        scores = [score for run in source.runs for score in run.record.scores]
        names = dict.fromkeys(name for score in scores for name in score.metrics)
        labels = {name: source.collection.label(name) for name in names}
        scores = [score for run in source.runs for score in run.final("ema") if score.floor]
        floor = {name: value for score in reversed(scores) for name, value in score.floor.items()}
        return {"labels": labels, "floor": floor}

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield every run as a point, each difference with its interval, and the table."""
        findings = document.findings
        rows = [row | _means(document, row["variant"]) for row in compared.variants(findings)]
        note = NOTE
        if any(variant.shared_device for variant in findings.variants):
            note += Markup(" * Several runs shared the device.")
        yield self.block(
            Charts(tuple(_charts(document, theme))),
            _frame(document, rows),
            Text(note, "note"),
            *_secondary(document),
            exports=tuple(_exports(document, rows)),
        )


# --- Tables ------------------------------------------------------------------------------------


def _others(document: Document) -> list[str]:
    """Return the metrics of the table beside the primary one."""
    known = dict.fromkeys(name for run in document.runs for name in run.metrics)
    known.pop(document.findings.primary.metric, None)
    return ordered(known, theirs=PROGRAM in document.config)


def _better(document: Document, metric: str) -> str | None:
    """Return which values of a metric are; None where that is not known."""
    theirs: dict[str, str] = document.findings.protocol.get("better", {})
    return METRICS[metric].better if metric in METRICS else theirs.get(metric)


def _means(document: Document, variant: str) -> dict[str, float | None]:
    """Return the mean of each other metric over the finished runs of a variant."""
    ok = [run for run in document.runs if run.variant == variant and run.status == Status.FINISHED]
    means: dict[str, float | None] = {}
    for metric in _others(document):
        values = [value for run in ok if (value := run.metrics.get(metric)) is not None]
        means[metric] = fmean(values) if values else None
    return means


def _frame(document: Document, rows: Sequence[Values]) -> Frame:
    """Return one row a variant, each baseline pinned, and real images as the last."""
    primary, labels = document.findings.primary, document.labels
    others = _others(document)
    places = {name: decimals(row[name] for row in rows) for name in others}
    verdict = (
        Column("says", "Verdict", numeric=False, help="against its baseline; see Method"),
        *compared.EFFECT[:2],
    )
    compares = bool(primary.comparisons)
    columns = (
        compared.VARIANT,
        Column("mean", f"{primary.label}, mean ± sd", compared.mean, better=primary.better),
        *(verdict if compares else ()),
        Column("n_ok", "Runs", lambda row: f"{row['n_ok']} of {row['n']}",
               help="with a figure, of those attempted"),
        *((replace(compared.EFFECT[2], more=True),) if compares else ()),
        *(Column(name, labels.get(name, name), better=_better(document, name), places=places[name],
                 more=compares)
          for name in others),
        *(replace(column, more=True) for column in compared.known(_costs(), rows)),
    )  # fmt: skip
    baselines = {comparison.baseline for comparison in primary.comparisons}
    lines = []
    for row in rows:
        name = row["variant"]
        pinned = baselines == {name}
        says = row["says"] or Cell("baseline" if name in baselines else MISSING, "")
        lines.append(Row({**row, "says": says}, key=f"v-{name}", pinned=pinned, variant=name))
    caption = f"Every variant: {primary.title}"
    floor = tuple(_floor(document, columns, others))
    return Frame("results", caption, columns, lines, foot=floor)


def _costs() -> tuple[Column, ...]:
    return (
        Column("train_sec", "Training",
               lambda row: duration(row["train_sec"]) + "*" * row["shared_device"],
               help="median time of a run"),
        Column("images_per_sec", "Images/s", better="higher", places=0),
        Column("parameters", "Parameters", lambda row: compact(row["parameters"]),
               help="of G and D together"),
    )  # fmt: skip


def _floor(document: Document, columns: Iterable[Column], others: Iterable[str]) -> Iterator[Row]:
    """Yield the metrics of real images against real ones, where one of those shown is known."""
    primary, floor = document.findings.primary.metric, document.floor
    if any(floor.get(name) is not None for name in (*others, primary)):
        values: dict[str, Any] = {column.key: Cell(MISSING) for column in columns}
        values |= {
            "variant": Cell("real images", "real images"),
            "says": Cell("what is possible", ""),
            "mean": Cell(number(floor.get(primary)), floor.get(primary)),
        }
        yield Row(values | {name: floor.get(name) for name in others}, pinned=True)


def _secondary(document: Document) -> Iterator[Fold]:
    """Yield the readings that do not decide."""
    rows = []
    for reading in document.findings.secondary:
        if reading.absent:
            absent = dict.fromkeys(("effect", "interval"), Cell(MISSING))
            absent |= {"reading": Cell(reading.title), "pair": Cell(reading.absent)}
            rows.append(Row({**absent, "metric": Cell(reading.label)}))
        rows += [Row(row, variant=row["variant"]) for row in compared.comparisons(reading)]
    if rows:
        caption = "Secondary readings: described, not tested"
        frame = Frame("secondary", caption, SECONDARY, rows)
        yield Fold("Secondary readings", (frame,), "secondary-readings")


def _exports(document: Document, rows: Sequence[Values]) -> Iterator[Export]:
    """Yield the variants as files, one of them as a paper would print it, and all comparisons."""
    findings, labels = document.findings, document.labels
    primary = findings.primary
    paper = compared.summary(primary, rows, {n: labels.get(n, n) for n in _others(document)})
    budget = findings.budget and f" {escaped(findings.budget)}."
    headline = f"**{escaped(answer(document)[1])}**{budget}"
    files = {
        "summary.csv": to_csv([{key: row[key] for key in compared.SUMMARY} for row in rows]),
        "summary.tex": to_latex(paper, compared.titled(findings, document.name)),
        "summary.md": f"{headline}\n\n{to_markdown(paper)}\n",
    }
    yield Export(files, "one row a variant")
    readings = (findings.primary, *findings.secondary)
    figures = [row for reading in readings for row in compared.comparisons(reading)]
    filed = to_csv([{key: row[key] for key in (*compared.FILED, "label")} for row in figures])
    yield Export({"comparisons.csv": filed}, "every reading of every comparison")


# --- Figures -----------------------------------------------------------------------------------


def _charts(document: Document, theme: Theme) -> Iterator[Drawn]:
    """Yield every run as a point, and each difference with its interval."""
    primary = document.findings.primary
    values = {
        variant.name: {seed: v for seed, v in sorted(variant.values.items()) if v is not None}
        for variant in document.findings.variants
    }
    if any(values.values()):
        yield _runs(document, values, theme)
    effects = [c for c in primary.comparisons if c.effect is not None]
    if effects:
        margins = {c.min_effect for c in effects}
        matters = f"±{primary.min_effect:.3g}" if primary.min_effect else "not known"
        matters = matters if len(margins) == 1 else "of each baseline its own"
        yield drawn(
            forest(effects, primary, theme),
            "forest",
            listed(claim(c, primary, document.status) for c in primary.comparisons),
            "Difference of means, variant minus baseline, with intervals that hold all at once "
            f"with 95 %. The band is what would not matter ({matters}).",
        )


def _runs(document: Document, values: Mapping[str, BySeed], theme: Theme) -> Drawn:
    primary = document.findings.primary
    baselines = {comparison.baseline for comparison in primary.comparisons}
    baseline = next(iter(baselines)) if len(baselines) == 1 else None
    level = decimals(value for own in values.values() for value in own.values())
    ranges = listed(
        f"{name} {number(min(known), level)} to {number(max(known), level)} in {len(known)}"
        for name, own in values.items()
        if (known := own.values())
    )
    band = f", the band is the range of {baseline}" if baseline else ""
    return drawn(
        strip(values, primary.label, baseline, theme),
        "runs",
        f"{primary.label} of every run: {ranges}",
        f"Every run is a point ({primary.better} is better); the bar is the median{band}.",
    )


def strip(values: Mapping[str, BySeed], label: str, baseline: str | None, theme: Theme) -> Figure:
    """Every seed as a point, a bar at the median, and the baseline's range as a band."""
    with panel(_height(list(values))) as (figure, axes):
        if baseline and (known := values.get(baseline, {}).values()):
            axes.axvspan(min(known), max(known), color=INK, alpha=0.08, lw=0)
        for row, (name, own) in enumerate(values.items()):
            _points(axes, row, name, own, theme)
        _rows(axes, list(values))
        axes.set_xlabel(label)
        if not any(value for own in values.values() for value in own.values()):
            axes.set_xlim(-0.02, 1)  # where all are 0, and not from -0.05
    return figure


def _points(axes: Axes, row: int, name: str, own: BySeed, theme: Theme) -> None:
    look, level = theme.looks[name], decimals(own.values())
    for i, (seed, value) in enumerate(sorted(own.items(), key=lambda item: item[1])):
        place = row + 0.14 * ((i % 3) - 1)
        (point,) = axes.plot(
            [value], [place], ls="none", marker=look.marker, color=look.colour, ms=6, **EDGE
        )
        live.tell(point, f"{name}, seed {seed}: {number(value, level)}", theme.run(name, seed))
    if own:
        axes.plot([median(own.values())] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=1.8)


def forest(rows: Sequence[Words], reading: Reading, theme: Theme) -> Figure:
    """Each difference with its simultaneous interval, over the band that does not matter."""
    names, places = [f"{c.variant} v {c.baseline}" for c in rows], places_of(reading)
    with panel(_height(names)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, (c, name) in enumerate(zip(rows, names, strict=True)):
            look, target = theme.looks[c.variant], theme.variant(c.variant)
            axes.barh(row, 2 * c.min_effect, 1, -c.min_effect, color=INK, alpha=0.08, lw=0)
            if c.interval:
                says = f"{name}: 95 % interval {span(c.interval, places)}"
                (line,) = axes.plot(c.interval, [row, row], color=look.colour, linewidth=2.4)
                live.tell(line, says, target)
                axes.plot(c.interval, [row, row], ls="none", marker="|", color=look.colour, ms=9)
            effect = c.effect or 0.0
            (point,) = axes.plot(
                [effect], [row], ls="none", marker=look.marker, color=look.colour, ms=8, **EDGE
            )
            live.tell(point, f"{name}: {number(effect, places, signed=True)}", target)
        _rows(axes, names)
        axes.set_xlabel(f"difference in {reading.label}")
    return figure


def _height(names: Sequence[str]) -> float:
    lines = sum(max(2, wrapped(name).count("\n") + 1.6) for name in names)
    return 0.65 + 0.21 * lines


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
