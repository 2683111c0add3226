"""What a whole page says in a sentence, and what a tuning's searches say, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from sagan_bench.analysis.verdicts import Metric
from sagan_bench.experiments.tuning import findings as tuning
from sagan_bench.experiments.tuning.searched import IMPORTANCE_TRIALS, SearchFindings, Unweighed
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report.claims import several, with_size
from sagan_bench.report.document import AnyDocument, Document, TuningDocument
from sagan_bench.report.document import TuningFindings as Worded
from sagan_bench.report.findings import still_to_come
from sagan_bench.report.formats import decimals, number, plural
from sagan_bench.report.readings import Reading
from sagan_bench.report.text import Tone, in_words, sentence, standing, tone


def answer(document: AnyDocument) -> tuple[Tone, str]:
    """Return what the whole page says, in one sentence, and its colour."""
    if isinstance(document, TuningDocument):
        return _of_tuning(document)
    if document.status == "smoke":
        return "open", "Nothing can be claimed: these runs are too small to compare."
    if document.status == "partial":
        return "open", _progress(document)
    return of_reading(document.findings.primary)


def of_reading(primary: Reading) -> tuple[Tone, str]:
    """Return what the reading that decides says, in one sentence, and its colour."""
    if not primary.comparisons:
        return "open", "Nothing is compared here: no baseline was named."
    if len(primary.comparisons) > 1:
        return several(primary.comparisons)
    (comparison,) = primary.comparisons
    return tone(comparison), with_size(comparison, primary)


def _progress(document: Document) -> str:
    """Return how many runs are over and to come; a report of before says it in its own words."""
    over, unfinished = len(document.findings.runs), len(document.findings.unfinished)
    if document.missing is None and document.findings.headline:
        return document.findings.headline[0]
    missing = f"{plural(unfinished, 'run')} still to be finished"
    return "Nothing can be claimed yet: " + (
        f"{still_to_come(over, document.missing) if document.missing else missing}."
    )


def sentences(document: AnyDocument) -> tuple[str, ...]:
    """Return what can be said in full, a sentence a comparison."""
    if isinstance(document, TuningDocument):
        return document.findings.sentences
    return document.findings.primary.sentences


# --- Tuning ------------------------------------------------------------------------------------


def findings(numbers: tuning.Findings) -> Worded:
    """Return what can be said of a tuning, in words beside the figures."""
    metric = Metric(numbers.labels[0], numbers.better[0], numbers.min_effect)
    comparisons = tuple(map(in_words, numbers.comparisons))
    words = {
        "searches": tuple(map(_with_importance, numbers.searches)),
        "standing": standing(numbers.standing) if numbers.standing else "",
        "comparisons": comparisons,
        "sentences": tuple(sentence(c, metric, "search") for c in comparisons),
    }
    return Worded(**{**vars(numbers), **words})


def _with_importance(search: SearchFindings) -> SearchFindings:
    """Return a search that says in words why the importance of its parameters is not known."""
    complete = search.budget.trials[Outcome.COMPLETE]
    words = {
        Unweighed.TOO_FEW: f"{complete} trials are complete; said from {IMPORTANCE_TRIALS} on",
        Unweighed.CONSTANT: "the objective did not vary",
    }
    absent = search.importance.absent
    weighed = replace(search.importance, absent=absent and words[Unweighed(absent)])
    return replace(search, importance=weighed)


def reading(numbers: Worded) -> Reading:
    """Return the comparison of variants that were tuned equally; its unit is a search."""
    return Reading(
        title="tuned equally",
        metric=numbers.objectives[0],
        label=numbers.labels[0],
        better=numbers.better[0],
        min_effect=numbers.min_effect,
        comparisons=numbers.comparisons,
        sentences=numbers.sentences,
    )


def _of_tuning(document: TuningDocument) -> tuple[Tone, str]:
    numbers, searches = document.findings, document.findings.searches
    if document.status == "partial":
        return "open", f"Nothing can be claimed yet: {progress(searches)}."
    if len(searches) == 1:
        return "told", winner(numbers, searches[0])
    if len(numbers.variants) == 1:
        return "told", _reported(numbers)
    compared = numbers.comparisons
    if not compared:
        return "open", "Nothing is compared here: no search has a figure on fresh seeds."
    if len(compared) > 1:
        return several(compared)
    (comparison,) = compared
    if comparison.verdict is None:
        means = " and ".join(f"{number(mean)} ({name})" for name, mean in _means(numbers))
        label = numbers.labels[0]
        says = f"No verdict: on fresh seeds {label} is {means}; {comparison.standing}."
        return "open", says
    return tone(comparison), with_size(comparison, reading(numbers))


def progress(searches: Sequence[SearchFindings]) -> str:
    """Return how far searches are, while they are not over."""
    ended = sum(len(search.trials) - search.budget.unended for search in searches)
    planned = sum(search.budget.asked_for for search in searches)
    if ended < planned:
        return f"{ended} of {plural(planned, 'trial')} ended"
    return f"{plural(sum(search.missing for search in searches), 'run')} on fresh seeds to come"


def _reported(numbers: Worded) -> str:
    """Return what several searches of one variant reached, in a sentence."""
    known = [search.reported for search in numbers.searches if search.reported is not None]
    count = plural(len(numbers.searches), "search")
    if not known:
        return f"None of {count} of {numbers.variants[0]} has a figure on fresh seeds."
    places = decimals(known)
    ends = f"{number(min(known), places)} to {number(max(known), places)}"
    return f"On fresh seeds the winners of {count} reach {numbers.labels[0]} {ends}."


def _means(numbers: Worded) -> Iterator[tuple[str, float]]:
    """Yield the mean of each variant's searches on set B, as compared."""
    for variant in numbers.variants:
        known = [search.reported for search in numbers.searches if search.variant == variant]
        if values := [value for value in known if value is not None]:
            yield variant, fmean(values)


def winner(numbers: Worded, search: SearchFindings) -> str:
    """Return in a sentence what a search's winner is worth."""
    best = search.winner
    if not search.best_so_far:
        return "No trial was completed, so there is no winner."
    if best is None:
        return "No trial is trained again on fresh seeds: what the search says is too optimistic."
    if search.reported is None:
        return f"Trial {best.number} was the best, but runs of it on fresh seeds were lost."
    places = decimals([search.reported, search.searched])
    reported, searched = number(search.reported, places), number(search.searched, places)
    return (
        f"On fresh seeds trial {best.number}'s values reach {numbers.labels[0]} {reported}; the "
        f"search said {searched}, {optimism(search.optimism, places)}."
    )


def optimism(difference: float | None, places: int | None = None) -> str:
    """Return by how much a search's own figure was off, in words."""
    if not difference:
        return "the same"
    way = "optimistic" if difference > 0 else "pessimistic"
    return f"{number(abs(difference), places)} too {way}"
