"""Numbers and findings in words for a reader."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from sagan_bench.analysis.comparison import Reading
from sagan_bench.analysis.statistics import Comparison
from sagan_bench.experiments.tuning.findings import Findings as TuningFindings
from sagan_bench.experiments.tuning.findings import SearchFindings
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report.document import AnyDocument, Document, TuningDocument

Tone = Literal["better", "worse", "same", "open", "told"]
MISSING = "—"
MARKS: dict[Tone, str] = {"better": "▲", "worse": "▼", "same": "≈", "open": "?", "told": "●"}
"""Beside the colour of a verdict, for whoever does not see it."""
TONES: Mapping[str | None, Tone] = {
    "better": "better",
    "worse": "worse",
    "no meaningful difference": "same",
}
ARROWS = {"lower": "↓", "higher": "↑"}
ENDINGS: dict[Tone, str] = {
    "better": "better",
    "worse": "worse",
    "same": "without a difference that matters",
    "open": "open",
}
NAMED = 3
"""Variants at most that an answer names."""
MINUTE, HOUR = 60, 3600


def decimals(values: Iterable[float | None]) -> int:
    """Return the decimals at which the largest of a column has three digits; one at least."""
    largest = max((abs(value) for value in values if value), default=1.0)
    if largest >= 10_000:
        return 0
    return min(6, max(1, 2 - math.floor(math.log10(largest))))


def number(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Return a number with thousands separators and a true minus; a dash where there is none."""
    if value is None:
        return MISSING
    places = (0 if isinstance(value, int) else decimals([value])) if places is None else places
    return f"{value:{'+' if signed else ''},.{places}f}".replace("-", "−")


def span(interval: tuple[float, float] | None, places: int) -> str:
    """Return an interval in brackets; a dash where there is none."""
    if interval is None:
        return MISSING
    low, high = (number(bound, places, signed=True) for bound in interval)
    return f"[{low}, {high}]"


def compact(value: float | None) -> str:
    """Return a large number with its unit: 1.2 M."""
    if value is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(sec: float | None) -> str:
    """Return seconds in the unit that suits them."""
    if sec is None:
        return MISSING
    if sec < 2 * MINUTE:
        return f"{sec:.0f} s"
    return f"{sec / MINUTE:.0f} min" if sec < 2 * HOUR else f"{sec / HOUR:.1f} h"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 run, 2 runs."""
    return f"{count} {noun if count == 1 else _many(noun)}"


def _many(noun: str) -> str:
    return noun + ("es" if noun.endswith("ch") else "s")


def short(key: str) -> str:
    """Return a setting without its section: lr_g, attention.generator."""
    return key.partition(".")[2] or key


def shown(value: Any) -> str:
    """Return a value of the configuration as a reader writes it; a dash where there is none."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- Verdicts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A comparison for a reader: what can be said, the figures behind it, and all in short."""

    tone: Tone
    text: str
    figures: tuple[tuple[str, str], ...]
    sentence: str
    short: str


def _short(one: Comparison, places: int) -> str:
    if one.effect is None:
        return ""
    interval = f" {span(one.interval, places)}" if one.interval else ""
    return number(one.effect, places, signed=True) + interval


def tone(one: Comparison) -> Tone:
    """Return the colour of a verdict."""
    return TONES.get(one.verdict, "open")


def claims(reading: Reading, status: str, unit: str = "run") -> list[Claim]:
    """Return a claim for each comparison of a reading; ``unit`` is what was counted."""
    places = _places(reading)
    return [
        Claim(
            tone(one),
            claim(one, reading, status),
            _figures(one, reading, places, unit),
            sentence,
            _short(one, places),
        )
        for one, sentence in zip(reading.comparisons, reading.sentences, strict=True)
    ]


def claim(one: Comparison, reading: Reading, status: str = "complete") -> str:
    """Return what can be said of a comparison, in a few words."""
    names = f"{one.variant} and {one.baseline}"
    if one.effect is None:
        lost = f"{one.n - one.n_ok} of {one.n} and {one.n_baseline - one.n_baseline_ok} of "
        return f"{names} cannot be compared: {lost}{one.n_baseline} runs gave no figure"
    if one.verdict in ("better", "worse"):
        return f"{one.variant} is {one.verdict} than {one.baseline}"
    if one.verdict == "no meaningful difference":
        return (
            f"{names} differ by less than matters: {reading.label} within ±{reading.min_effect:.3g}"
        )
    if one.verdict == "inconclusive":
        return f"Not shown whether {one.variant} differs from {one.baseline}"
    why = "the study is not finished" if status == "partial" else one.standing
    return f"No verdict on {names}: {why}"


def _places(reading: Reading) -> int:
    return decimals([*(one.effect for one in reading.comparisons), reading.min_effect or None])


def _figures(
    one: Comparison, reading: Reading, places: int, unit: str
) -> tuple[tuple[str, str], ...]:
    runs = f"{one.n_ok} of {one.n} v {one.n_baseline_ok} of {one.n_baseline}"
    found = [
        (f"difference in {reading.label}", number(one.effect, places, signed=True)),
        ("95 % interval", span(one.interval, places)),
        (f"{_many(unit)} with a figure", runs),
    ]
    if one.p_holm is not None:
        found.append(("p (Holm)", "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.2g}"))
    if one.p_better is not None:
        found.append(("P(better)", f"{one.p_better:.2f}"))
    if one.seeds_needed:
        found.append((f"{_many(unit)} each to decide", f"about {one.seeds_needed}"))
    return tuple(found)


def answer(document: AnyDocument) -> tuple[Tone, str]:
    """Return what the whole page says, in one sentence, and its colour."""
    if isinstance(document, TuningDocument):
        return _of_tuning(document)
    found = document.findings
    compared = found.primary.comparisons
    if document.status == "smoke":
        return "open", "Nothing can be claimed: these runs are too small to compare."
    if document.status == "partial":
        return "open", f"Nothing can be claimed yet: {_progress(document)}."
    if not compared:
        return "open", "Nothing is compared here: no baseline was named."
    if len(compared) == 1:
        text = claim(compared[0], found.primary)
        return tone(compared[0]), f"{text}{_by(compared[0], found.primary)}."
    return _several(compared)


def _by(one: Comparison, reading: Reading) -> str:
    if one.verdict not in ("better", "worse") or one.effect is None:
        return ""
    way = "higher" if one.effect > 0 else "lower"
    return f": its {reading.label} is {way} by {number(abs(one.effect), _places(reading))}"


def sureness(reading: Reading, status: str, unit: str = "run") -> str | None:
    """Return how sure the answer to a single comparison is, in plain words; null for several."""
    if len(reading.comparisons) != 1 or status == "smoke":
        return None
    (one,) = reading.comparisons
    runs = f"{plural(one.n, unit)} against {one.n_baseline}"
    if one.interval is None:
        return f"{runs}: too few to say how sure."
    places = _places(reading)
    low, high = (number(bound, places, signed=True) for bound in one.interval)
    lies = f"{runs} put the difference between {low} and {high} (95 % interval)"
    return f"{lies}; {_beside(one.interval, reading.min_effect)}."


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


def _progress(document: Document) -> str:
    """Return how many runs are over and to come; of a report of before, in its own words."""
    over, unfinished = len(document.findings.runs), len(document.findings.unfinished)
    if document.missing:
        return f"{over} runs are over and {document.missing} are still to come"
    before = " ".join(document.findings.headline).partition("Provisional: ")[2].rstrip(".")
    return before or f"{plural(unfinished, 'run')} still to be finished"


def _several(compared: Sequence[Comparison]) -> tuple[Tone, str]:
    """Return how many comparisons ended how; the colour is that of more than half of them."""
    by_tone: dict[Tone, list[str]] = {}
    for one in compared:
        by_tone.setdefault(tone(one), []).append(one.variant)
    if by_tone.keys() == {"open"}:
        return "open", f"Nothing can be claimed of any of the {len(compared)} comparisons."
    told = [
        f"{len(by_tone[one])} {ending}{_names(by_tone[one])}"
        for one, ending in ENDINGS.items()
        if one in by_tone
    ]
    baselines = {one.baseline for one in compared}
    baseline = baselines.pop() if len(baselines) == 1 else "their baselines"
    most = max(by_tone, key=lambda one: len(by_tone[one]))
    colour = most if 2 * len(by_tone[most]) > len(compared) else "open"
    return colour, f"Of {len(compared)} comparisons with {baseline}: {'; '.join(told)}."


def _names(variants: Sequence[str]) -> str:
    return f" ({', '.join(variants)})" if len(variants) <= NAMED else ""


def sentences(document: AnyDocument) -> tuple[str, ...]:
    """Return what can be said in full, a sentence a comparison."""
    if isinstance(document, TuningDocument):
        return document.findings.sentences
    return document.findings.primary.sentences


# --- Tuning ------------------------------------------------------------------------------------


def reading(found: TuningFindings) -> Reading:
    """Return the comparison of variants that were tuned equally; its unit is a search."""
    return Reading(
        title="tuned equally",
        metric=found.objectives[0],
        label=found.labels[0],
        better=found.better[0],
        min_effect=found.min_effect,
        comparisons=found.comparisons,
        sentences=found.sentences,
    )


def _of_tuning(document: TuningDocument) -> tuple[Tone, str]:
    found = document.findings
    if document.status == "partial":
        return "open", f"Nothing can be claimed yet: {progress(found.searches)}."
    if len(found.searches) == 1:
        return "told", winner(found, found.searches[0])
    if len(found.variants) == 1:
        return "told", _reported(found)
    compared = found.comparisons
    if not compared:
        return "open", "Nothing is compared here: no search has a figure on fresh seeds."
    if len(compared) > 1:
        return _several(compared)
    (one,) = compared
    if one.verdict is None:
        means = " and ".join(f"{number(m)} ({v})" for v, m in _means(found))
        return "open", f"No verdict: on fresh seeds {found.labels[0]} is {means}; {one.standing}."
    return tone(one), f"{claim(one, reading(found))}{_by(one, reading(found))}."


def progress(searches: Sequence[SearchFindings]) -> str:
    """Return how far searches are, while they are not over."""
    ended = sum(len(one.trials) - one.budget.trials[Outcome.RUNNING] for one in searches)
    asked = sum(one.budget.asked_for for one in searches)
    if ended < asked:
        return f"{ended} of {plural(asked, 'trial')} ended"
    return f"{plural(sum(one.missing for one in searches), 'run')} on fresh seeds to come"


def _reported(found: TuningFindings) -> str:
    """Return what several searches of one variant reached, in a sentence."""
    known = [one.reported for one in found.searches if one.reported is not None]
    count = plural(len(found.searches), "search")
    if not known:
        return f"None of {count} of {found.variants[0]} has a figure on fresh seeds."
    places = decimals(known)
    ends = f"{number(min(known), places)} to {number(max(known), places)}"
    return f"On fresh seeds the winners of {count} reach {found.labels[0]} {ends}."


def _means(found: TuningFindings) -> Iterator[tuple[str, float | None]]:
    """Yield the mean of each variant's searches on set B, as compared."""
    for variant in found.variants:
        known = [one.reported for one in found.searches if one.variant == variant]
        if values := [value for value in known if value is not None]:
            yield variant, fmean(values)


def winner(found: TuningFindings, one: SearchFindings) -> str:
    """Return in a sentence what a search's winner is worth."""
    label, best = found.labels[0], one.winner
    if not one.best_so_far:
        return "No trial was completed, so there is no winner."
    if best is None:
        return "No trial is trained again on fresh seeds: what the search says is too optimistic."
    if one.reported is None:
        return f"Trial {best.number} was the best, but runs of it on fresh seeds were lost."
    places = decimals([one.reported, one.searched])
    reported, searched = number(one.reported, places), number(one.searched, places)
    return (
        f"On fresh seeds trial {best.number}'s values reach {label} {reported}; the search said "
        f"{searched}, {optimism(one.optimism, places)}."
    )


def optimism(difference: float | None, places: int | None = None) -> str:
    """Return by how much a search's own figure was off, in words."""
    if not difference:
        return "the same"
    way = "optimistic" if difference > 0 else "pessimistic"
    return f"{number(abs(difference), places)} too {way}"
