"""Comparisons in words: verdicts, sentences and headlines, for the terminal, pages and files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sagan_bench.analysis.comparison import Absence, Findings, Kind
from sagan_bench.analysis.comparison import Reading as Numbers
from sagan_bench.analysis.variants import ENGAGED, Variant
from sagan_bench.analysis.verdicts import Basis, Comparison, Metric, Standing, Verdict
from sagan_bench.report import readings
from sagan_bench.report.formats import decimals, many, number, plural, span
from sagan_bench.report.readings import Reading

Tone = Literal["better", "worse", "same", "open", "told"]
Words = Comparison[str]
MARKS: dict[Tone, str] = {"better": "▲", "worse": "▼", "same": "≈", "open": "?", "told": "●"}
"""Beside the colour of a verdict, for whoever does not see it."""
TONES: dict[Verdict | None, Tone] = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.SAME: "same",
}
ARROWS = {"lower": "↓", "higher": "↑"}
COUNTED: dict[Tone, str] = {
    "better": "better",
    "worse": "worse",
    "same": "without a difference that matters",
    "open": "open",
}
NAMED = 3
"""Variants at most that an answer names."""
TITLES = {
    Kind.PRIMARY: "at the end, averaged weights (primary)",
    Kind.END: "at the end, averaged weights (secondary)",
    Kind.RAW: "at the end, raw weights (secondary)",
    Kind.EQUAL_FLOPS: "at equal FLOPs, from scores on the way (secondary)",
    Kind.EQUAL_SECONDS: "at equal seconds, from scores on the way (secondary)",
    Kind.BEST: "the best on the way (secondary, optimistic: chosen by looking)",
}
WITHOUT_CURVES = {
    Kind.EQUAL_FLOPS: "at equal FLOPs (secondary)",
    Kind.EQUAL_SECONDS: "at equal seconds (secondary)",
    Kind.BEST: "the best on the way (secondary)",
}


# --- What a comparison may say -----------------------------------------------------------------


def standing(of: Standing) -> str:
    """Return how much a comparison may say."""
    match of.basis:
        case Basis.POINTS:
            return "points only"
        case Basis.PROVISIONAL:
            return f"provisional: {plural(of.missing, 'run')} still to come"
        case Basis.EXPLORATORY if of.looks:
            return f"exploratory after {plural(of.looks, 'look')}"
        case Basis.TOO_SMALL:
            return "too small to conclude from"
        case Basis.FEW_SEARCHES:
            return f"conditional on these searches, {of.searches} a side"
        case Basis.UNEQUAL_SEARCHES:
            return "unequal searches, of {} to {} trials".format(*of.trials)
    if of.idle:
        what = "attention" if of.idle.is_attention else "the block"
        return (
            f"{what} was not engaged; no conclusion: ||gamma o|| / ||x|| of {of.idle.variant} was "
            f"below {ENGAGED} at the end of {of.idle.idle} of {of.idle.runs} runs"
        )
    return of.basis


def in_words(comparison: Comparison[Standing]) -> Words:
    """Return a comparison with its standing in words."""
    return Comparison(**{**vars(comparison), "standing": standing(comparison.standing)})


def label(comparison: Words) -> str:
    """Return the verdict of a comparison, or why it has none."""
    return comparison.verdict or comparison.standing


def tone(comparison: Words) -> Tone:
    """Return the colour of a verdict."""
    return TONES.get(comparison.verdict, "open")


def sentence(c: Words, metric: Metric, unit: str = "runs") -> str:
    """Return a comparison in words and figures; a null result is never called "no help"."""
    parts = [f"{_headline(c)}: {_in_figures(c, metric)}"]
    for name, n, n_ok in (c.variant, c.n, c.n_ok), (c.baseline, c.n_baseline, c.n_baseline_ok):
        if n_ok < n:
            parts.append(f"{n - n_ok} of {n} {unit} of {name} diverged or failed")
    if c.verdict and c.p is None:
        parts.append("no t test: too few values, or no spread in either group")
    if c.seeds_needed and c.effect is not None:
        larger = "a difference as large as this"
        smaller = "that a difference as small as this does not matter"
        shown = larger if abs(c.effect) > c.min_effect else smaller
        parts.append(f"about {c.seeds_needed} finished {unit} each would show {shown}")
    if metric.blind_to and not (c.verdict and c.verdict.is_claim):
        parts.append(f"{metric.label} hardly sees {metric.blind_to}: of that this says nothing")
    return "; ".join(parts)


def _headline(c: Words) -> str:
    match c.verdict:
        case None:
            return f"{c.variant} against {c.baseline} ({c.standing}, no verdict)"
        case Verdict.INCONCLUSIVE:
            return f"inconclusive whether {c.variant} differs from {c.baseline}"
        case Verdict.SAME:
            return f"{c.variant} is within ±{c.min_effect:.3g} of {c.baseline}, {c.verdict}"
    return f"{c.variant} is {c.verdict} than {c.baseline}"


def _in_figures(c: Words, metric: Metric) -> str:
    effect = "not to be compared" if c.effect is None else f"{c.effect:+.3g}"
    interval = " [{:.3g}, {:.3g}]".format(*c.interval) if c.interval else ""
    figures = [f"{metric.label} {effect}{interval}", f"n = {c.n} v {c.n_baseline}"]
    if c.verdict and c.p_holm is not None:
        figures.append("Holm p < 0.001" if c.p_holm < 0.001 else f"Holm p = {c.p_holm:.2g}")
    if c.p_better is not None:
        figures.append(f"P(better) {c.p_better:.2f}")
    return ", ".join(figures)


# --- Findings ----------------------------------------------------------------------------------


def findings(numbers: Findings) -> readings.Findings:
    """Return what can be said of runs, in words beside the figures."""
    runs, question = numbers.runs, numbers.question
    primary = reading(numbers.primary)
    variants = {variant.name: variant for variant in numbers.variants}
    primary = replace(
        primary,
        sentences=tuple(
            f"{text}; {_settling(variants[c.variant], variants[c.baseline])}"
            for c, text in zip(primary.comparisons, primary.sentences, strict=True)
        ),
    )
    rates = dict.fromkeys(run.config.training.learning_rates for run in runs.attempted)
    shown = " or ".join(f"{g:.3g}/{d:.3g}" for g, d in rates)
    budget = f"{runs.steps:,} steps, learning rates of G/D {shown}"
    return readings.Findings(
        name=question.name,
        question=question.text,
        headline=_headlines(numbers, primary, budget),
        budget=budget,
        declared=question.declared,
        protocol=numbers.protocol,
        variants=numbers.variants,
        primary=primary,
        secondary=tuple(map(reading, numbers.secondary)),
        paper=numbers.paper,
        differences=numbers.differences,
        runs=tuple(str(run.path) for run in runs.attempted),
        unfinished=tuple(map(str, runs.unfinished)),
    )


def reading(numbers: Numbers) -> Reading:
    """Return a reading in words: title, a sentence for each comparison, or why there is none."""
    kind, comparisons = numbers.kind, tuple(map(in_words, numbers.comparisons))
    title, absent = TITLES[kind], None
    if numbers.absent is Absence.NO_CURVES:
        title, absent = WITHOUT_CURVES[kind], "no scores on the way were taken (run.eval_every)"
    elif numbers.absent:
        absent = f"{kind} were not recorded"
    return Reading(
        title=title,
        metric=numbers.metric,
        label=numbers.how.label,
        better=numbers.how.better,
        min_effect=numbers.min_effect,
        comparisons=comparisons,
        sentences=tuple(sentence(comparison, numbers.how) for comparison in comparisons),
        absent=absent,
    )


def _headlines(numbers: Findings, primary: Reading, budget: str) -> tuple[str, ...]:
    """Return in a few sentences what can be claimed, and what cannot."""
    if not numbers.question.comparable:
        return ("These runs are too small to compare: they show that everything works.",)
    if numbers.missing:
        return (f"Provisional: {still_to_come(len(numbers.runs.attempted), numbers.missing)}.",)
    claims, others = list[str](), list[str]()
    for comparison, text in zip(primary.comparisons, primary.sentences, strict=True):
        is_open = comparison.verdict in (None, Verdict.INCONCLUSIVE)
        (others if is_open else claims).append(f"{text}.")
    first, *rest = claims or ["nothing can be claimed."]
    return (f"At {budget}: {first}", *rest, *others)


def still_to_come(over: int, missing: int) -> str:
    """Return how far runs are."""
    return f"{over} runs are over and {missing} are still to come"


def _settling(*sides: Variant) -> str:
    if not all(side.curves for side in sides):
        return "whether the runs had settled was not recorded"
    return "; ".join(f"{side.name}: {_endings(side)}" for side in sides)


def _endings(variant: Variant) -> str:
    unknown = variant.curves - variant.settled - variant.unsettled
    counts = {
        "had not settled": variant.unsettled,
        "had settled": variant.settled,
        "may not have settled": unknown,
    }
    return ", ".join(
        f"{count} of {variant.curves} runs {ending}" for ending, count in counts.items() if count
    )


# --- For a reader of a page --------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A comparison for a reader: what can be said, the figures behind it, and all in short."""

    tone: Tone
    text: str
    figures: tuple[tuple[str, str], ...]
    sentence: str
    short: str


def claims(reading: Reading, status: str, unit: str = "run") -> list[Claim]:
    """Return a claim for each comparison of a reading; ``unit`` is what was counted."""
    places = places_of(reading)
    return [
        Claim(
            tone(comparison),
            claim(comparison, reading, status),
            _figures(comparison, reading, places, unit),
            sentence,
            _short(comparison, places),
        )
        for comparison, sentence in zip(reading.comparisons, reading.sentences, strict=True)
    ]


def claim(c: Words, reading: Reading, status: str = "complete") -> str:
    """Return what can be said of a comparison, in a few words."""
    names = f"{c.variant} and {c.baseline}"
    if c.effect is None:
        lost = f"{c.n - c.n_ok} of {c.n} and {c.n_baseline - c.n_baseline_ok} of "
        return f"{names} cannot be compared: {lost}{c.n_baseline} runs gave no figure"
    match c.verdict:
        case None:
            why = "the study is not finished" if status == "partial" else c.standing
            return f"No verdict on {names}: {why}"
        case Verdict.INCONCLUSIVE:
            return f"Not shown whether {c.variant} differs from {c.baseline}"
        case Verdict.SAME:
            within = f"{reading.label} within ±{reading.min_effect:.3g}"
            return f"{names} differ by less than matters: {within}"
    return f"{c.variant} is {c.verdict} than {c.baseline}"


def with_size(comparison: Words, reading: Reading) -> str:
    """Return what can be said of a comparison, and where something is claimed, by how much."""
    text = claim(comparison, reading)
    if comparison.effect is None or not (comparison.verdict and comparison.verdict.is_claim):
        return f"{text}."
    way = "higher" if comparison.effect > 0 else "lower"
    size = number(abs(comparison.effect), places_of(reading))
    return f"{text}: its {reading.label} is {way} by {size}."


def places_of(reading: Reading) -> int:
    """Return the decimals at which the differences of a reading are shown."""
    effects = (comparison.effect for comparison in reading.comparisons)
    return decimals([*effects, reading.min_effect or None])


def _short(comparison: Words, places: int) -> str:
    if comparison.effect is None:
        return ""
    interval = f" {span(comparison.interval, places)}" if comparison.interval else ""
    return number(comparison.effect, places, signed=True) + interval


def _figures(c: Words, reading: Reading, places: int, unit: str) -> tuple[tuple[str, str], ...]:
    runs = f"{c.n_ok} of {c.n} v {c.n_baseline_ok} of {c.n_baseline}"
    figures = [
        (f"difference in {reading.label}", number(c.effect, places, signed=True)),
        ("95 % interval", span(c.interval, places)),
        (f"{many(unit)} with a figure", runs),
    ]
    if c.p_holm is not None:
        figures.append(("p (Holm)", "< 0.001" if c.p_holm < 0.001 else f"{c.p_holm:.2g}"))
    if c.p_better is not None:
        figures.append(("P(better)", f"{c.p_better:.2f}"))
    if c.seeds_needed:
        figures.append((f"{many(unit)} each to decide", f"about {c.seeds_needed}"))
    return tuple(figures)


def sureness(reading: Reading, status: str, unit: str = "run") -> str | None:
    """Return how sure the answer to a single comparison is, in plain words; null for several."""
    if len(reading.comparisons) != 1 or status == "smoke":
        return None
    (comparison,) = reading.comparisons
    runs = f"{plural(comparison.n, unit)} against {comparison.n_baseline}"
    if comparison.interval is None:
        return f"{runs}: too few to say how sure."
    places = places_of(reading)
    low, high = (number(bound, places, signed=True) for bound in comparison.interval)
    lies = f"{runs} put the difference between {low} and {high} (95 % interval)"
    return f"{lies}; {_beside(comparison.interval, reading.min_effect)}."


def _beside(interval: tuple[float, float], least: float) -> str:
    """Return where an interval lies beside 0 and the smallest difference that matters."""
    low, high = interval
    if low > least or high < -least:
        return f"all of it is beyond the {least:.3g} that would matter"
    if -least <= low and high <= least:
        return f"all of it is within the ±{least:.3g} that would not matter"
    if low > 0 or high < 0:
        return f"that excludes 0, but not differences below the {least:.3g} that would matter"
    return "that includes 0: it could be either way"


def several(comparisons: Sequence[Words]) -> tuple[Tone, str]:
    """Return how many comparisons ended how; the colour is that of more than half of them."""
    by_tone: dict[Tone, list[str]] = {}
    for comparison in comparisons:
        by_tone.setdefault(tone(comparison), []).append(comparison.variant)
    if by_tone.keys() == {"open"}:
        return "open", f"Nothing can be claimed of any of the {len(comparisons)} comparisons."
    counts = []
    for colour, ending in COUNTED.items():
        if names := by_tone.get(colour):
            named = f" ({', '.join(names)})" if len(names) <= NAMED else ""
            counts.append(f"{len(names)} {ending}{named}")
    baselines = {comparison.baseline for comparison in comparisons}
    baseline = baselines.pop() if len(baselines) == 1 else "their baselines"
    most = max(by_tone, key=lambda colour: len(by_tone[colour]))
    colour = most if 2 * len(by_tone[most]) > len(comparisons) else "open"
    return colour, f"Of {len(comparisons)} comparisons with {baseline}: {'; '.join(counts)}."
