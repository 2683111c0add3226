"""A comparison in words: its verdict, how much it may say, and its sentence, for all surfaces."""

from collections.abc import Iterator
from typing import Literal

from sagan_bench.analysis.variants import ENGAGED
from sagan_bench.analysis.verdicts import Basis, Comparison, Interval, Metric, Standing, Verdict
from sagan_bench.report.formats import many, plural

Tone = Literal["better", "worse", "same", "open", "told"]
Words = Comparison[str]
MARKS: dict[Tone, str] = {"better": "▲", "worse": "▼", "same": "≈", "open": "?", "told": "●"}
"""Beside the colour of a verdict, for whoever does not see it."""
ARROWS = {"lower": "↓", "higher": "↑"}


def standing(of: Standing, unit: str = "run") -> str:
    """Return how much a comparison may say; ``unit`` is what is counted."""
    match of.basis:
        case Basis.POINTS:
            return "points only"
        case Basis.PROVISIONAL if not of.missing:
            return "provisional: it waits for what failed or has no figure"
        case Basis.PROVISIONAL:
            return f"provisional: {plural(of.missing, unit)} still to come"
        case Basis.EXPLORATORY if of.looks:
            return f"exploratory after {plural(of.looks, 'look')}"
        case Basis.POST_HOC:
            return "post hoc: no study fixed metric, margin and runs beforehand"
        case Basis.TOO_SMALL:
            return "too small to conclude from"
        case Basis.FEW_SEARCHES:
            return f"conditional on these searches, {of.searches} a side"
    if of.idle:
        what = "attention" if of.idle.is_attention else "the block"
        return (
            f"{what} was not engaged; no conclusion: ||gamma o|| / ||x|| of {of.idle.variant} was "
            f"below {ENGAGED} at the end of {of.idle.idle} of {of.idle.runs} runs"
        )
    return of.basis


def in_words(comparison: Comparison[Standing], unit: str = "run") -> Words:
    """Return a comparison with its standing in words."""
    return Comparison(**{**vars(comparison), "standing": standing(comparison.standing, unit)})


def label(c: Words) -> str:
    """Return the verdict of a comparison, or why it has none."""
    if c.verdict is None:
        return c.standing
    return f"{c.verdict}, per step" if c.shown_per_flop is False else c.verdict


def tone(comparison: Words) -> Tone:
    """Return the colour of a verdict."""
    verdict = comparison.verdict
    if verdict and verdict.is_better:
        return "better"
    if verdict and verdict.is_worse:
        return "worse"
    return "same" if verdict is Verdict.SAME else "open"


def sentence(c: Words, metric: Metric, unit: str = "run") -> str:
    """Return a comparison in words and figures; a null result is never called "no help"."""
    untested, blind = remarks(c, metric.label, metric.blind_to)
    parts = [f"{_headline(c)}: {_in_figures(c, metric)}", *lost(c, unit), untested]
    if c.seeds_needed and c.effect is not None:
        larger = "a difference as large as this"
        smaller = "that a difference as small as this does not matter"
        shown = larger if abs(c.effect) > c.min_effect else smaller
        each = f"about {c.seeds_needed:,} finished {many(unit)} each{seeds_range(c)}"
        what = "study" if unit == "run" else "tuning"
        parts.append(f"a new {what} of {each} would show {shown}")
    return "; ".join(filter(None, [*parts, blind]))


def remarks(c: Words, label: str, blind_to: str) -> tuple[str, str]:
    """Return what no figure of a comparison says: that there is no test, and what is not seen.

    Args:
        c: a comparison.
        label: of the metric.
        blind_to: what the metric hardly sees.
    """
    untested = "no t test: too few values, or no spread in either group"
    blind = f"{label} hardly sees {blind_to}: of that this says nothing"
    is_claim = c.verdict is not None and c.verdict.is_claim
    return (
        untested if c.verdict and c.p is None else "",
        blind if blind_to and not is_claim else "",
    )


def _headline(c: Words) -> str:
    match c.verdict:
        case None:
            return f"{c.variant} against {c.baseline} ({c.standing}, no verdict)"
        case Verdict.INCONCLUSIVE:
            return f"inconclusive whether {c.variant} differs from {c.baseline}"
        case Verdict.SAME if excludes_0(c.interval):
            less = f"by less than the {c.min_effect:.3g} that matters"
            return f"{c.variant} differs from {c.baseline}, but {less}"
        case Verdict.SAME:
            return f"{c.variant} is within ±{c.min_effect:.3g} of {c.baseline}, {c.verdict}"
    return claimed(c)


def claimed(c: Words) -> str:
    """Return a verdict that claims a difference, with the names of both sides."""
    if c.verdict is Verdict.DIFFERS:
        return f"{c.variant} differs from {c.baseline}, but not shown by as much as matters"
    way, _, extent = (c.verdict or "").partition(" ")
    text = f"{c.variant} is {way} than {c.baseline}" + (f" {extent}" if extent else "")
    return f"per step, not per FLOP shown, {text}" if c.shown_per_flop is False else text


def corrected(c: Words) -> str:
    """Return by what the p of a comparison is corrected: below 0.05 where the interval is."""
    return "Bonferroni" if c.price is None else "priced"


def excludes_0(interval: Interval | None) -> bool:
    """Return whether an interval lies on one side of 0."""
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def seeds_range(c: Words) -> str:
    """Return between which numbers of seeds those that are needed are likely to lie."""
    if c.seeds_range is None:
        return ""
    fewest, most = c.seeds_range
    return f" (between {fewest:,} and {'over 1,000' if most is None else f'{most:,}'})"


def ahead(c: Words) -> str:
    """Return in how many pairs of runs the variant's is ahead, with the interval of that chance."""
    if c.p_better is None:
        return ""
    if c.pairs is None:  # of a report made before they were counted
        return f"P(better) {c.p_better:.2f}"
    interval = " [{:.2g}, {:.2g}]".format(*c.p_better_interval) if c.p_better_interval else ""
    return f"ahead in {c.p_better * c.pairs:g} of {c.pairs} pairs{interval}"


def lost(c: Words, unit: str = "run") -> Iterator[str]:
    """Yield how many runs of each side gave no figure, and why."""
    yield from without_figure(c.variant, c.n, c.n_ok, c.n_diverged, c.n_failed, unit)
    theirs = c.n_baseline_diverged, c.n_baseline_failed
    yield from without_figure(c.baseline, c.n_baseline, c.n_baseline_ok, *theirs, unit)


def without_figure(
    name: str, n: int, n_ok: int, diverged: int | None, failed: int | None, unit: str = "run"
) -> Iterator[str]:
    """Yield how many of ``n`` runs gave no figure, for each reason."""
    unmeasured = n - n_ok - (diverged or 0) - (failed or 0)
    finished = "gave no figure" if diverged is None else "finished without a figure"
    reasons = ((diverged, "diverged"), (failed, "failed"), (unmeasured, finished))
    for count, reason in reasons:
        if count:
            yield f"{count} of {n} {many(unit)} of {name} {reason}"


def _in_figures(c: Words, metric: Metric) -> str:
    effect = "not to be compared" if c.effect is None else f"{c.effect:+.3g}"
    interval = " [{:.3g}, {:.3g}]".format(*c.interval) if c.interval else ""
    figures = [f"{metric.label} {effect}{interval}", f"n = {c.n} v {c.n_baseline}"]
    if c.verdict and c.p_bonferroni is not None:
        figures.append(f"{corrected(c)} {p_value(c.p_bonferroni)}")
    if c.p_divergence is not None:
        figures.append(f"by divergence {p_value(c.p_divergence)}")
    figures += filter(None, [ahead(c)])
    if c.verdict is None and c.effect:
        favours = c.variant if (c.effect > 0) == (metric.better == "higher") else c.baseline
        figures.append(f"the estimate favours {favours}")
    return ", ".join(figures)


def p_value(p: float) -> str:
    """Return a p value with its sign."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
