"""Comparisons for a reader of a page: what can be said, the figures behind it, and how sure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sagan_bench.analysis.statistics import EXPLORATORY_N
from sagan_bench.analysis.verdicts import Interval, Verdict
from sagan_bench.core.registry import METRICS
from sagan_bench.report.formats import decimals, many, number, span
from sagan_bench.report.readings import Reading
from sagan_bench.report.text import (
    Tone,
    Words,
    ahead,
    claimed,
    corrected,
    excludes_0,
    p_value,
    remarks,
    seeds_range,
    tone,
)

COUNTED: dict[Tone, str] = {
    "better": "better",
    "worse": "worse",
    "same": "without a difference that matters",
    "open": "open",
}
INTERVAL, CHANCE = "95 % interval", "divergence"
MOST_PLACES = 6
NAMED = 3
"""Variants at most that an answer names."""


@dataclass(frozen=True)
class Claim:
    """A comparison for a reader.

    Attributes:
        tone: of its verdict.
        text: what can be said.
        figures: behind it: name -> value, those that neither the answer nor `sureness` says.
        rest: what none of these says; may be empty.
        sentence: all of it at once.
        short: difference and interval.
    """

    tone: Tone
    text: str
    figures: tuple[tuple[str, str], ...]
    rest: str
    sentence: str
    short: str


def claims(
    reading: Reading,
    status: str,
    unit: str = "run",
    besides: Callable[[Words], Iterable[str]] = lambda c: (),
) -> list[Claim]:
    """Return a claim for each comparison of a reading.

    Args:
        reading: whose comparisons.
        status: of the report.
        unit: what was counted.
        besides: returns what else is known of a comparison.
    """
    places, told = places_of(reading), sureness(reading, status, unit) or ""
    blind_to = METRICS[reading.metric].blind_to if reading.metric in METRICS else ""
    return [
        Claim(
            tone(c),
            claim(c, reading, status),
            tuple(_figures(c, reading, unit, told)),
            "; ".join(filter(None, (*besides(c), *remarks(c, reading.label, blind_to)))),
            sentence,
            _short(c, places),
        )
        for c, sentence in zip(reading.comparisons, reading.sentences, strict=True)
    ]


def claim(c: Words, reading: Reading, status: str = "complete") -> str:
    """Return what can be said of a comparison, in a few words."""
    names = f"{c.variant} and {c.baseline}"
    if c.effect is None and not (c.verdict and c.verdict.is_claim):
        without = f"{c.n - c.n_ok} of {c.n} and {c.n_baseline - c.n_baseline_ok} of "
        return f"{names} cannot be compared: {without}{c.n_baseline} runs gave no figure"
    match c.verdict:
        case None:
            why = "the study is not finished" if status == "partial" else c.standing
            return f"No verdict on {names}: {why}"
        case Verdict.INCONCLUSIVE:
            return f"Not shown whether {c.variant} differs from {c.baseline}"
        case Verdict.SAME:
            within = f"{reading.label} within ±{c.min_effect:.3g}"
            return f"{names} differ by less than matters: {within}"
    text = claimed(c)
    return text.replace("per step", "Per step", 1) if c.shown_per_flop is False else text


def with_size(c: Words, reading: Reading) -> str:
    """Return what can be said of a comparison, and where something is claimed, by how much."""
    text = claim(c, reading)
    if c.verdict and c.verdict.is_by_divergence:
        return f"{text}: {_diverged(c)}."
    if c.effect is None or not _says_size(c):
        return f"{text}."
    way = "higher" if c.effect > 0 else "lower"
    size = number(abs(c.effect), places_of(reading))
    return f"{text}: its {reading.label} is {way} by {size}."


def _diverged(c: Words) -> str:
    ours, theirs = (f"{k} of {n}" for k, n in (
        (c.n_diverged, c.n), (c.n_baseline_diverged, c.n_baseline)
    ))  # fmt: skip
    return f"{ours} runs diverged against {theirs}"


def places_of(reading: Reading) -> int:
    """Return the decimals at which the differences of a reading are shown."""
    effects = (comparison.effect for comparison in reading.comparisons)
    margins = (comparison.min_effect or None for comparison in reading.comparisons)
    places = decimals([*effects, *margins])
    for c in reading.comparisons:  # what excludes 0 must not be rounded to it
        while excludes_0(c.interval) and places < MOST_PLACES and _rounds_to_0(c.interval, places):
            places += 1
    return places


def _rounds_to_0(interval: Interval | None, places: int) -> bool:
    return interval is not None and not all(round(bound, places) for bound in interval)


def _short(comparison: Words, places: int) -> str:
    if comparison.effect is None:
        return ""
    interval = f" {span(comparison.interval, places)}" if comparison.interval else ""
    return number(comparison.effect, places, signed=True) + interval


def _figures(c: Words, reading: Reading, unit: str, told: str) -> Iterator[tuple[str, str]]:
    """Yield the figures of a comparison that the answer, and ``told`` after it, do not say."""
    places = places_of(reading)
    if c.effect is not None and not _says_size(c):
        yield f"difference in {reading.label}", number(c.effect, places, signed=True)
    if c.interval and INTERVAL not in told:
        yield INTERVAL, span(c.interval, places)
    both, all_ok = f"{c.n_ok} and {c.n_baseline_ok}", (c.n, c.n_baseline)
    if (c.n_ok, c.n_baseline_ok) != all_ok:
        both = f"{c.n_ok} of {c.n} and {c.n_baseline_ok} of {c.n_baseline}"
    yield f"{many(unit)} with a figure", both
    for name, p in ((corrected(c), c.p_bonferroni), (CHANCE, c.p_divergence)):
        if p is not None and not (name == CHANCE and told):
            yield f"p ({name})", p_value(p).removeprefix("p ").removeprefix("= ")
    if c.pairs is not None:
        yield f"pairs of {many(unit)}", ahead(c)
    elif c.p_better is not None:
        yield "P(better)", f"{c.p_better:.2f}"
    if c.seeds_needed:
        about = f"about {c.seeds_needed:,}{seeds_range(c)}"
        yield f"{many(unit)} each to decide", about


def _says_size(c: Words) -> bool:
    """Return whether the answer to a single comparison says by how much the sides differ."""
    is_claim = c.verdict is not None and c.verdict.is_claim and not c.verdict.is_by_divergence
    return is_claim and c.effect is not None


def sureness(reading: Reading, status: str, unit: str = "run") -> str | None:
    """Return how sure the answer to a single comparison is, in plain words; null for several."""
    if len(reading.comparisons) != 1 or status == "smoke":
        return None
    (c,) = reading.comparisons
    if c.p_divergence is not None:
        return f"That as many diverge by chance: {p_value(c.p_divergence)}."
    if c.interval is None:
        few = min(c.n_ok, c.n_baseline_ok) < EXPLORATORY_N
        why = "Too few figures" if few else "Without a spread there is nothing"
        return f"{why} to say how sure."
    places = places_of(reading)
    low, high = (number(bound, places, signed=True) for bound in c.interval)
    put = f"The {many(unit)} put the difference between {low} and {high} ({INTERVAL})"
    return f"{put}; {_beside(c.interval, c.min_effect)}."


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
    variants = [comparison.variant for comparison in comparisons]

    def name(c: Words) -> str:
        return c.variant if variants.count(c.variant) == 1 else f"{c.variant} v {c.baseline}"

    by_tone: dict[Tone, list[str]] = {}
    for comparison in comparisons:
        by_divergence = comparison.verdict and comparison.verdict.is_by_divergence
        ending = " by divergence" if by_divergence else ""
        by_tone.setdefault(tone(comparison), []).append(name(comparison) + ending)
    differ = [name(c) for c in comparisons if c.verdict is Verdict.DIFFERS]
    if by_tone.keys() == {"open"} and not differ:
        return "open", f"Nothing can be claimed of any of the {len(comparisons)} comparisons."
    undecided = [each for each in by_tone.get("open", []) if each not in differ]
    endings = [(by_tone.get(colour, []), ending) for colour, ending in COUNTED.items()]
    endings[-1:] = [(differ, "different, not shown by as much as matters"), (undecided, "open")]
    counts = [f"{len(names)} {ending}{_named(names)}" for names, ending in endings if names]
    baselines = {comparison.baseline for comparison in comparisons}
    baseline = baselines.pop() if len(baselines) == 1 else "their baselines"
    per_step = [name(c) for c in comparisons if c.shown_per_flop is False]
    if per_step:
        counts.append(f"per step, not per FLOP shown: {len(per_step)}{_named(per_step)}")
    most = max(by_tone, key=lambda colour: len(by_tone[colour]))
    colour = most if 2 * len(by_tone[most]) > len(comparisons) else "open"
    return colour, f"Of {len(comparisons)} comparisons with {baseline}: {'; '.join(counts)}."


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if len(names) <= NAMED else ""
