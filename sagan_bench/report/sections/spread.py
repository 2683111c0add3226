"""How runs of one variant differ, and of what: training, or the images drawn to score them."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sagan_bench.analysis.spread import Spread
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import live
from sagan_bench.report.document import Document
from sagan_bench.report.formats import MISSING, command, decimals, duration, listed, number, plural
from sagan_bench.report.frames import Cell, Column, Frame, Row
from sagan_bench.report.readings import Correlation
from sagan_bench.report.sections._base import Block, Charts, Section, Text
from sagan_bench.report.svg import FEW, LINE_CHARS, Theme, drawn, panel, shortened
from sagan_bench.runs.program import PROGRAM

VERDICTS = "verdicts rest on the {} that the study declared"
FIGURES = "what is compared rests on the {} that all of them have"
FROM_RUNS = 10
"""Of a variant, from which on their distribution is drawn."""
COLUMNS = (
    Column("variant", "Variant", numeric=False),
    Column("runs", "Runs"),
    Column("sd", "sd", help="standard deviation of runs"),
    Column("apart", "Two seeds differ by", help="in the mean, as a share of the variant's mean"),
    Column("sampling", "sd of drawing", help="of the images to be scored, of the same weights"),
    Column("share", "Its share", help="of the variance between runs"),
    Column("cheapest", "Sampling seeds", help="a run: at hand, and cheapest for a verdict"),
)


@SECTIONS.register("spread")
class SpreadOfRuns(Section):
    """How runs of one variant differ, and of what."""

    order = 35
    title = "Where the spread comes from"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield how far seeds lie apart, what drawing does, and whether seeds go together."""
        findings = document.findings
        if not findings.spreads:
            return
        caption = f"Spread of {findings.primary.label} between runs of one variant"
        table = Frame("spread", caption, COLUMNS, [Row(_row(of)) for of in findings.spreads])
        rests = VERDICTS if findings.declared else FIGURES
        said = (
            *advice(findings.spreads, rests, _command(document)),
            *map(together, findings.correlations),
        )
        values = {
            variant.name: {seed: v for seed, v in variant.values.items() if v is not None}
            for variant in findings.variants
        }
        known = {name: own for name, own in values.items() if len(own) >= FROM_RUNS}
        charts = []
        if known:
            alt = listed(f"{name}: {plural(len(own), 'run')}" for name, own in known.items())
            label = findings.primary.label
            lost = {v.name: v.summary.n_diverged or 0 for v in findings.variants}
            is_low = findings.primary.better == "higher"
            figure = ecdf(known, lost, label, theme, lost_are_low=is_low)
            without = ", ".join(f"{lost[name]} of {name}" for name in known if lost[name])
            where = "below" if is_low else "above"
            beyond = f" Diverged or collapsed, {where} all: {without}." if without else ""
            charts.append(
                drawn(figure, "ecdf", alt, f"The share of runs up to each {label}.{beyond}")
            )
        yield self.block(*map(Text, said), table, Charts(charts))


def _command(document: Document) -> str | None:
    """Return what scores the runs with more sampling seeds; None if another program made them."""
    if PROGRAM in document.config:
        return None
    return command("evaluate", document.called, "--seeds", "0-4")


def _row(of: Spread) -> dict[str, Cell]:
    cheapest = "" if of.cheapest is None else f"; cheapest {of.cheapest}"
    return {
        "variant": Cell(of.variant),
        "runs": Cell(f"{of.runs}", of.runs),
        "sd": Cell(number(of.sd), of.sd),
        "apart": _percent(of.apart),
        "sampling": Cell(number(of.sampling_sd), of.sampling_sd),
        "share": _percent(of.sampling_share),
        "cheapest": Cell(f"{of.samples}{cheapest}", of.samples),
    }


def _percent(share: float | None) -> Cell:
    return Cell(MISSING) if share is None else Cell(f"{100 * share:.2g} %", share)


def advice(spreads: Sequence[Spread], rests: str, command: str | None) -> Iterator[str]:
    """Yield how far two seeds lie apart, and whether more images or more seeds would help.

    Args:
        spreads: of the variants.
        rests: what is said of the sampling seeds that count, with ``{}`` for their number.
        command: that scores the runs with more; None of runs that another program made.
    """
    far = [of for of in spreads if of.apart is not None]
    if far:
        shares = listed(f"{100 * (of.apart or 0):.2g} % ({of.variant})" for of in far)
        yield f"Two seeds of one variant differ in the mean by {shares} of its mean."
    if (later := max(spreads, key=lambda of: of.drawn)).drawn > later.samples:
        count = sum(of.repeated for of in spreads)
        yield (
            f"{count} of {sum(of.runs for of in spreads)} runs are scored with up to {later.drawn} "
            f"sampling seeds; {rests.format(later.samples)}."
        )
    known = [of for of in spreads if of.sampling_share is not None]
    if not known:
        how = f"; {command} makes it known" if command else ""
        yield f"What drawing the images does to a score is not known{how}."
        return
    most = max(known, key=lambda of: of.sampling_share or 0)
    share = 100 * (most.sampling_share or 0)
    few = f", by {most.repeated} of its {plural(most.runs, 'run')}" if most.repeated else ""
    yield (
        f"More images or more seeds? Drawing images makes up to {share:.2g} % of the variance "
        f"between runs (of {most.variant}{few}): however many are drawn, {100 - share:.2g} % of "
        "the seeds would still be needed."
    )
    yield from _costs(most, [of for of in spreads if of.cheapest is not None])


def _costs(most: Spread, known: Sequence[Spread]) -> Iterator[str]:
    """Yield what a sampling seed and a run cost, and how many sampling seeds are cheapest.

    Args:
        most: the spread of which costs are told.
        known: those of which the cheapest number is known.
    """
    if most.train_sec and most.sample_sec:
        whole = most.train_sec + most.samples * most.sample_sec
        yield (
            f"One more sampling seed costs at most {duration(most.sample_sec)} a run, one more run "
            f"{duration(whole)} (of {most.variant})."
        )
    more = [of for of in known if (of.cheapest or 0) > of.samples]
    for of in more:
        yield (
            f"By the seconds of its training and scoring, a verdict on {of.variant} would cost "
            f"least with {of.cheapest} sampling seeds a run (now {of.samples})."
        )
    if known and not more:
        yield "By these seconds, more seeds say more than more sampling seeds do."


def together(of: Correlation) -> str:
    """Return whether runs at the same seed go together, and what follows."""
    low, high = of.interval
    runs = f"Runs of {of.variant} and {of.baseline} at the same seed"
    said = f"{runs} correlate by {of.r:.2f} [{low:.2f}, {high:.2f}]"
    if low > BREAK_EVEN:
        return f"{said}; paired = true in a new study would see smaller differences."
    if high < 0:
        return f"{said}; they go against each other, so that claims are bolder than 5 %."
    return f"{said}."


BREAK_EVEN = 0.3
"""Correlation from which on pairs of seeds need fewer of them (docs/statistics.md)."""


def ecdf(
    values: Mapping[str, Mapping[int, float]],
    lost: Mapping[str, int],
    label: str,
    theme: Theme,
    *,
    lost_are_low: bool,
) -> Figure:
    """The empirical distribution of each variant's runs, of those that were lost too."""
    with panel(2.8) as (figure, axes):
        for name, by_seed in values.items():
            look, level = theme.looks[name], decimals(by_seed.values())
            runs = sorted(by_seed.items(), key=lambda item: item[1])
            own = [value for _, value in runs]
            below = lost[name] if lost_are_low else 0
            steps = (below + np.arange(len(own) + 1)) / (len(own) + lost[name])
            axes.step(
                [own[0], *own], steps, where="post", color=look.colour,
                label=shortened(name, LINE_CHARS),
            )  # fmt: skip
            for (seed, value), share in zip(runs, steps[1:], strict=True):
                (point,) = axes.plot(
                    [value], [share], ls="none", marker=look.marker, color=look.colour, ms=4
                )
                says = f"{name}, seed {seed}: {number(value, level)}"
                live.tell(point, says, theme.run(name, seed))
        axes.set_ylim(0, 1.02)
        axes.set_title("share of runs", loc="left", fontsize="medium")
        axes.set_xlabel(label)
        if len(values) <= FEW:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
    return figure
