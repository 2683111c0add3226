"""The figures of a page, each with the finding as its title."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.figure import Figure

from sagan_bench.report import figures
from sagan_bench.report.document import Document, Placed, Series
from sagan_bench.report.figures import DASHES, Effect, Line, Look
from sagan_bench.report.formats import HOUR, MINUTE, decimals, number
from sagan_bench.report.text import claim
from sagan_bench.runs.records import Status

TOLD = 8
"""Variants whose figures a title names; the table has the rest."""
READINGS = {
    "gamma": "|γ|, in y = x + γ o",
    "ratio": "strength ‖γ o‖ / ‖x‖",
    "entropy": "entropy of a query's weights, nats",
    "distance_px": "distance from query to key, px",
}
LOSSES = {"loss_d": "loss of D", "loss_g": "loss of G"}


@dataclass(frozen=True)
class Drawn:
    """A figure in the page."""

    name: str
    svg: str
    title: str
    caption: str


def drawn(figure: Figure, name: str, title: str, caption: str) -> Drawn:
    """Return a figure for the page.

    Args:
        figure: what is drawn.
        name: unique in the page.
        title: the finding.
        caption: how it is read.
    """
    return Drawn(name, figures.svg(figure, f"fig-{name}", title, caption), title, caption)


def _listed(parts: Iterable[str]) -> str:
    texts = list(parts)
    more = f"; and {len(texts) - TOLD} more, in the table" if len(texts) > TOLD else ""
    return "; ".join(texts[:TOLD]) + more


# --- Every run ---------------------------------------------------------------------------------


def results(document: Document, look: Mapping[str, Look]) -> Iterator[Drawn]:
    """Yield every run as a point, and each difference with its interval."""
    found = document.findings
    values = {v.name: v.values for v in found.variants}
    if any(value is not None for of in values.values() for value in of.values()):
        yield _strip(document, values, look)
    rows = [
        Effect(f"{c.variant} v {c.baseline}", c.variant, c.effect, c.interval)
        for c in found.primary.comparisons
        if c.effect is not None
    ]
    if rows:
        yield _forest(document, rows, look)


def _strip(
    document: Document, values: Mapping[str, Mapping[int, float | None]], look: Mapping[str, Look]
) -> Drawn:
    primary = document.findings.primary
    baselines = {c.baseline for c in primary.comparisons}
    baseline = next(iter(baselines)) if len(baselines) == 1 else None
    known = {name: [v for v in of.values() if v is not None] for name, of in values.items()}
    level = decimals(value for of in known.values() for value in of)
    told = _listed(
        f"{name} {number(min(of), level)} to {number(max(of), level)} in {len(of)}"
        for name, of in known.items()
        if of
    )
    band = f", the band is the range of {baseline}" if baseline else ""
    arrow = "higher is better" if primary.better == "higher" else "lower is better"
    return drawn(
        figures.strip(values, primary.label, baseline, look),
        "runs",
        f"{primary.label} of every run: {told}",
        f"Every run is a point ({arrow}); the bar is the median{band}.",
    )


def _forest(document: Document, rows: Sequence[Effect], look: Mapping[str, Look]) -> Drawn:
    primary = document.findings.primary
    title = _listed(claim(one, primary, document.status) for one in primary.comparisons)
    effect = f"±{primary.min_effect:.3g}" if primary.min_effect else "not known"
    return drawn(
        figures.forest(rows, f"difference in {primary.label}", primary.min_effect, look),
        "forest",
        title,
        "Difference of means, variant minus baseline, with intervals that hold all at once with "
        f"95 %. The band is what would not matter ({effect}).",
    )


# --- Curves ------------------------------------------------------------------------------------


def quality(document: Document, look: Mapping[str, Look]) -> Iterator[Drawn]:
    """Yield the scores on the way, and the losses."""
    for metric in dict.fromkeys((document.findings.primary.metric, "twin_rate", "fid")):
        label = document.labels.get(metric, metric)
        yield from _curves(
            document, metric, label, look,
            f"Scores on the way, of {_images(document)} images each: not the final ones.",
        )  # fmt: skip
    for name, label in LOSSES.items():
        yield from _curves(document, name, label, look, "One thin line a seed; thick: the median.")


def _images(document: Document) -> str:
    return str(document.config.get("run", {}).get("eval_images", "fewer"))


def attention(document: Document, look: Mapping[str, Look]) -> Iterator[Drawn]:
    """Yield what the blocks did over training."""
    for reading, label in READINGS.items():
        raw = " Of the raw weights: G's average lags behind." if reading == "gamma" else ""
        caption = f"Solid: G; dashed: D. One thin line a seed; thick: the median.{raw}"
        yield from _curves(document, reading, label, look, caption)


def _curves(
    document: Document, name: str, label: str, look: Mapping[str, Look], caption: str
) -> Iterator[Drawn]:
    found = [s for s in document.series if s.name == name or s.name.startswith(f"{name}.")]
    lines = [line for variant in look for line in _lines(found, variant, look[variant])]
    ends = [(line.label, list(line.middle().values())) for line in lines]
    if not any(values for _, values in ends):
        return
    level = decimals(values[-1] for _, values in ends if values)
    told = _listed(f"{of} {number(values[-1], level)}" for of, values in ends if values)
    yield drawn(
        figures.curves(lines, label, look), name.replace("_", "-"), f"{label}, at the end: {told}",
        caption,
    )  # fmt: skip


def _lines(found: Sequence[Series], variant: str, look: Look) -> Iterator[Line]:
    own = [series for series in found if series.variant == variant]
    taken = {False: 0, True: 0}
    for name in dict.fromkeys(series.name for series in own):
        _, _, block = name.partition(".")
        of_gamma = name.startswith("gamma.")
        seeds = tuple(
            (s.steps, _unsigned(s.values) if of_gamma else s.values) for s in own if s.name == name
        )
        of_d = block.startswith("discriminator")
        dashes = DASHES[(of_d + 2 * taken[of_d]) % len(DASHES)] if block else look.dashes
        taken[of_d] += 1
        yield Line(f"{variant}, {_block(block)}" if block else variant, variant, dashes, seeds)


def _unsigned(values: Sequence[float | None]) -> list[float | None]:
    """Return gammas without their signs, which mean nothing: -gamma and -o are the same block."""
    return [None if value is None else abs(value) for value in values]


def _block(name: str) -> str:
    return name.replace("generator.", "G ").replace("discriminator.", "D ")


# --- Cost and factors ---------------------------------------------------------------------------


def cost(document: Document, look: Mapping[str, Look]) -> Iterator[Drawn]:
    """Yield training time against the primary metric, every run a point."""
    primary = document.findings.primary
    points: dict[str, list[tuple[float, float]]] = {}
    longest = max((run.train_sec or 0 for run in document.runs), default=0)
    unit, size = ("hours", HOUR) if longest > 2 * HOUR else ("minutes", MINUTE)
    for run in document.runs:
        value = run.metrics.get(primary.metric)
        if run.status == Status.FINISHED and value is not None and run.train_sec:
            points.setdefault(run.variant, []).append((run.train_sec / size, value))
    if not points:
        return
    ordered = {name: points[name] for name in look if name in points}
    told = _listed(
        f"{name} {median(x for x, _ in own):.3g} {unit} for {median(y for _, y in own):.3g}"
        for name, own in ordered.items()
    )
    yield drawn(
        figures.cost(ordered, f"training, {unit}", primary.label, look),
        "cost",
        f"Medians of training time and {primary.label}: {told}",
        "Every finished run is a point; up is better."
        if primary.better == "higher"
        else "Every finished run is a point; down is better.",
    )


def factors(document: Document) -> Iterator[Drawn]:
    """Yield the primary metric by kind, network and side of the blocks, where sides vary."""
    primary = document.findings.primary
    cells: dict[tuple[str, str], float] = {}
    for variant in document.findings.variants:
        place, mean = document.placed.get(variant.name), variant.summary.mean
        blocks_only = all(
            key.startswith("model.attention.")
            for key, *_ in document.findings.differences.get(variant.name, ())
        )
        if place and mean is not None and blocks_only and (where := _where(place)):
            cells.setdefault(where, mean)
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = sorted({column for _, column in cells}, key=lambda text: int(text.split()[0]))
    if len(columns) < 2:
        return
    best = max(cells, key=lambda where: cells[where] * (1 if primary.better == "higher" else -1))
    yield drawn(
        figures.heat(cells, rows, columns, primary.label),
        "factors",
        f"Best mean {primary.label}: {number(cells[best])}, {best[0]} at side {best[1]}",
        f"Mean {primary.label} by what stands where, at which side of the feature map, of "
        "variants that change nothing else. Means alone: the intervals are in the results.",
    )


def _where(place: Placed) -> tuple[str, str] | None:
    """Return what stands where, and at which side; none where it stands at several."""
    sides = {*place.generator, *place.discriminator}
    if len(sides) != 1 or place.kind == "wider":
        return None
    networks = " and ".join(
        name for name, of in (("G", place.generator), ("D", place.discriminator)) if of
    )
    kind = "attention" if place.kind == "full" else place.kind
    return f"{kind} in {networks}", f"{sides.pop()} px"
