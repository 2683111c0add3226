"""The tables of a page: text for the reader, and beside it the value to sort by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from sagan_bench.analysis.variants import Variant
from sagan_bench.evaluation.protocol import BETTER, label
from sagan_bench.report import formats
from sagan_bench.report import text as words
from sagan_bench.report.document import Document, Reading, RunRow
from sagan_bench.report.formats import MISSING, compact, decimals, duration, number, plural
from sagan_bench.report.text import Tone, Words
from sagan_bench.runs.records import Status


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        sort: what is sorted by: a number, or a text; null comes last.
        tone: of a verdict.
        code: a command, shown on demand.
        href: where the text leads.
        look: variant whose mark stands before the text.
    """

    text: str
    sort: float | str | None = None
    tone: Tone | None = None
    code: str | None = None
    href: str | None = None
    look: str | None = None


@dataclass(frozen=True)
class Column:
    """One column; ``better`` gives its direction, ``help`` what it means."""

    label: str
    numeric: bool = True
    better: str | None = None
    help: str = ""


@dataclass(frozen=True)
class Row:
    """One row; the first cell is its header.

    Attributes:
        key: what its id is made of; empty for none.
        pinned: stays where it is when rows are sorted.
        variant: to filter by.
        status: to filter by.
    """

    cells: tuple[Cell, ...]
    key: str = ""
    pinned: bool = False
    variant: str = ""
    status: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    filtered: bool = False


def _of(value: float | None, text: str | None = None, places: int | None = None) -> Cell:
    return Cell(number(value, places) if text is None else text, value)


# --- Variants ----------------------------------------------------------------------------------


def results(document: Document) -> Table:
    """Return one row a variant, each baseline pinned, and real images as the last."""
    found = document.findings
    primary = found.primary
    metrics = shown_metrics(document)
    columns = (
        Column("Variant", numeric=False),
        Column("Verdict", numeric=False, help="against its baseline; docs/statistics.md"),
        Column("Runs", help="with a figure, of those attempted"),
        Column(f"{primary.label}, mean ± sd", better=primary.better),
        Column("Difference", help="of means, variant minus baseline"),
        Column("95 % interval", help="those of all comparisons hold at once"),
        Column("P(better)", help="chance that a run beats one of the baseline"),
        *(Column(document.labels.get(m, m), better=BETTER[m]) for m in metrics),
        Column("Training", help="median time of a run"),
        Column("Images/s", better="higher"),
        Column("Parameters", help="of G and D together"),
    )
    known = {v.name: means(document, v.name, metrics) for v in found.variants}
    places = [decimals(of[i] for of in known.values()) for i in range(len(metrics))]
    rows = [_result(document, v, known[v.name], places) for v in found.variants]
    if any(document.floor.get(m) is not None for m in (*metrics, primary.metric)):
        rows.append(_floor(document, metrics, places))
    caption = f"Every variant: {primary.title}"
    return Table("results", caption, columns, tuple(rows))


def shown_metrics(document: Document) -> list[str]:
    """Return the metrics of the results' table beside the primary one."""
    there = {name for run in document.runs for name in run.metrics}
    return [name for name in BETTER if name in there and name != document.findings.primary.metric]


def means(document: Document, variant: str, metrics: Iterable[str]) -> list[float | None]:
    """Return the mean of each metric over the finished runs of a variant."""
    ok = [run for run in document.runs if run.variant == variant and run.status == Status.FINISHED]
    values = ([run.metrics.get(metric) for run in ok] for metric in metrics)
    known = ([value for value in of if value is not None] for of in values)
    return [fmean(of) if of else None for of in known]


def _result(
    document: Document, variant: Variant, others: Sequence[float | None], places: Sequence[int]
) -> Row:
    primary, s = document.findings.primary, variant.summary
    one = next((c for c in primary.comparisons if c.variant == variant.name), None)
    baseline = any(c.baseline == variant.name for c in primary.comparisons)
    level = decimals(v.summary.mean for v in document.findings.variants)
    spread = "" if s.sd is None else f" ± {number(s.sd, level)}"
    cells = (
        Cell(variant.name, variant.name, look=variant.name, href=variant.name),
        _verdict(one, baseline),
        _of(s.n_ok, f"{s.n_ok} of {s.n}"),
        _of(s.mean, number(s.mean, level) + spread),
        *_effect(one, primary),
        *(_of(mean, places=p) for mean, p in zip(others, places, strict=True)),
        _of(variant.train_sec, duration(variant.train_sec) + "*" * variant.shared_device),
        _of(variant.images_per_sec, places=0),
        _of(variant.parameters, compact(variant.parameters)),
    )
    pinned = baseline and len({c.baseline for c in primary.comparisons}) == 1
    return Row(cells, key=f"v-{variant.name}", pinned=pinned, variant=variant.name)


def _verdict(one: Words | None, baseline: bool) -> Cell:
    if one is None:
        return Cell("baseline" if baseline else MISSING, "")
    tone = words.tone(one)
    return Cell(one.verdict or one.standing, one.verdict or one.standing, tone=tone)


def _effect(one: Words | None, reading: Reading) -> tuple[Cell, Cell, Cell]:
    if one is None:
        return Cell(MISSING), Cell(MISSING), Cell(MISSING)
    places = decimals([*(c.effect for c in reading.comparisons), reading.min_effect or None])
    return (
        Cell(number(one.effect, places, signed=True), one.effect),
        Cell(formats.span(one.interval, places), one.interval and one.interval[0]),
        Cell(number(one.p_better, 2), one.p_better),
    )


def _floor(document: Document, metrics: Sequence[str], places: Sequence[int]) -> Row:
    floor = document.floor
    primary = floor.get(document.findings.primary.metric)
    empty = Cell(MISSING)
    cells = (
        Cell("real images", "real images"),
        Cell("what is possible", ""),
        empty,
        _of(primary),
        *[empty] * 3,
        *(_of(floor.get(m), places=p) for m, p in zip(metrics, places, strict=True)),
        *[empty] * 3,
    )
    return Row(cells, pinned=True)


def changes(document: Document) -> Table:
    """Return what differs between each variant and its baseline."""
    baselines = {c.variant: c.baseline for c in document.findings.primary.comparisons}
    columns = (
        Column("Variant v baseline", numeric=False),
        Column("Setting", numeric=False),
        Column("In the baseline", numeric=False),
        Column("In the variant", numeric=False),
    )
    rows = []
    for variant, changed in document.findings.differences.items():
        lines = [(key, formats.shown(old), formats.shown(new)) for key, old, new in changed]
        for texts in lines or [("no setting differs", MISSING, MISSING)]:
            pair = f"{variant} v {baselines[variant]}"
            cells = (Cell(pair, look=variant), *map(Cell, texts))
            rows.append(Row(cells, variant=variant))
    caption = "All settings that differ from the baseline; everything else is equal"
    return Table("changes", caption, columns, tuple(rows))


def secondary(document: Document) -> Table:
    """Return the readings that do not decide."""
    columns = (
        Column("Reading", numeric=False),
        Column("Comparison", numeric=False),
        Column("Metric", numeric=False),
        Column("Difference"),
        Column("95 % interval"),
        Column("P(better)"),
    )
    rows = []
    for reading in document.findings.secondary:
        if reading.absent:
            first = (Cell(reading.title), Cell(reading.absent), Cell(reading.label))
            rows.append(Row((*first, *[Cell(MISSING)] * 3)))
        for one in reading.comparisons:
            pair = f"{one.variant} v {one.baseline}"
            label = f"{reading.label} {words.ARROWS[reading.better]}"
            cells = (Cell(reading.title), Cell(pair), Cell(label), *_effect(one, reading))
            rows.append(Row(cells, variant=one.variant))
    return Table("secondary", "Secondary readings: described, not tested", columns, tuple(rows))


# --- Blocks and the paper ----------------------------------------------------------------------


def blocks(document: Document) -> Table:
    """Return what each block did at the end: medians over a variant's runs, of averaged weights."""
    columns = (
        Column("Block", numeric=False),
        Column("Variant", numeric=False),
        Column("|γ|", help="y = x + γ o; the sign of γ means nothing"),
        Column("Strength", help="‖γ o‖ / ‖x‖"),
        Column("Entropy", help="of a query's weights, in nats; uniform is the most"),
        Column("of uniform", help="entropy / entropy of uniform weights"),
        Column("Distance, px", help="from query to key, expected"),
    )
    rows = []
    for variant in document.findings.variants:
        for block in variant.blocks:
            most, entropy = block.entropy_max, block.entropy
            share = None if entropy is None or not most else entropy / most
            cells = (
                Cell(f"{block.network} {block.name}"),
                Cell(variant.name, variant.name, look=variant.name),
                _of(block.gamma, places=3),
                _of(block.ratio, places=3),
                _of(entropy, places=2),
                _of(share, MISSING if share is None else f"{share:.0%}"),
                _of(block.distance_px, places=1),
            )
            rows.append(Row(cells, variant=variant.name))
    return Table("blocks", "What each block did at the end", columns, tuple(rows))


def paper(document: Document) -> Table | None:
    """Return the study beside the published table, matched by side of map / side of image."""
    lines = document.findings.paper
    figures = list(dict.fromkeys(key for line in lines for key in line.paper or {}))
    if not lines:
        return None
    columns = (
        Column("Variant", numeric=False),
        Column("Block", numeric=False),
        Column("Side, px"),
        Column("Side / image"),
        Column(f"{document.findings.primary.label} here"),
        *(Column(f"paper's {label(key, 'inception')}") for key in figures),
        Column("C", help="channels of the feature map"),
        Column("C/8", help="of queries and keys"),
        Column("Parameters"),
        Column("FLOPs a step"),
    )
    rows = []
    for line in lines:
        cells = (
            Cell(line.variant, line.variant, look=line.variant),
            Cell(line.block, line.block),
            _of(line.side),
            _of(line.share, MISSING if line.share is None else f"1/{round(1 / line.share)}"),
            _of(line.mean),
            *(_of((line.paper or {}).get(key), places=2) for key in figures),
            _of(line.channels),
            _of(line.channels and line.channels // 8),
            _of(line.parameters, compact(line.parameters)),
            _of(line.flops_per_step, compact(line.flops_per_step)),
        )
        rows.append(Row(cells, variant=line.variant))
    return Table("paper", "Beside the published table", columns, tuple(rows))


# --- Runs --------------------------------------------------------------------------------------


def runs(document: Document) -> Table:
    """Return every run with its status, reason and the command that repeats it."""
    primary = document.findings.primary
    columns = (
        Column("Run", numeric=False),
        Column("Variant", numeric=False),
        Column("Seed"),
        Column("Status", numeric=False),
        Column(primary.label, better=primary.better),
        Column("Steps"),
        Column("Training"),
        Column("Images/s", better="higher"),
        Column("Memory, GiB"),
        Column("Attempts"),
        Column("Repeat it", numeric=False),
        Column("Device", numeric=False),
    )
    level = decimals(run.metrics.get(primary.metric) for run in document.runs)
    rows = tuple(_run(run, run.metrics.get(primary.metric), level) for run in document.runs)
    caption = f"All {plural(len(document.runs), 'run')}"
    return Table("runs", caption, columns, rows, filtered=True)


def _run(run: RunRow, value: float | None, level: int) -> Row:
    told = run.status + (f": {run.reason}" if run.reason else "")
    cells = (
        Cell(run.id, run.id, href=run.id),
        Cell(run.variant, run.variant, look=run.variant),
        _of(run.seed),
        Cell(told, run.status, tone="worse" if run.status.is_lost else None),
        _of(value, places=level),
        _of(run.step, f"{run.step:,}" + (f" of {run.steps:,}" if run.step < run.steps else "")),
        _of(run.train_sec, duration(run.train_sec)),
        _of(run.images_per_sec, places=0),
        _of(run.peak_memory_gib, places=2),
        _of(run.attempts),
        Cell("command", "", code=run.command)
        if run.command
        else Cell("its variant or preset is not shipped here", ""),
        Cell(run.device + (f", {plural(run.threads, 'thread')}" if run.threads else "")),
    )
    return Row(cells, key=f"run-{run.id}", variant=run.variant, status=run.status)
