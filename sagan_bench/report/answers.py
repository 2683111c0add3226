"""What a whole page says in a sentence, and what a tuning's searches say, in words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from sagan_bench.analysis.verdicts import Metric
from sagan_bench.experiments.tuning import findings as tuning
from sagan_bench.experiments.tuning.confirmation import Candidate
from sagan_bench.experiments.tuning.definition import untuned
from sagan_bench.experiments.tuning.searched import IMPORTANCE_TRIALS, SearchFindings, Unweighed
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report import courses
from sagan_bench.report.claims import several, with_size
from sagan_bench.report.document import AnyDocument, Document, LengthsDocument, TuningDocument
from sagan_bench.report.document import TuningFindings as Worded
from sagan_bench.report.findings import still_to_come
from sagan_bench.report.formats import decimals, number, plural
from sagan_bench.report.readings import Reading
from sagan_bench.report.text import Tone, in_words, sentence, standing, tone


def answer(document: AnyDocument) -> tuple[Tone, str]:
    """Return what the whole page says, in one sentence, and its colour."""
    if isinstance(document, TuningDocument):
        return _of_tuning(document)
    if isinstance(document, LengthsDocument):
        return "told", document.findings.headline[0]
    if document.status == "smoke":
        return "open", "Nothing can be claimed: these runs are too small to compare."
    primary = document.findings.primary
    if document.status == "partial" and not any(c.verdict for c in primary.comparisons):
        return "open", _progress(document)
    return of_reading(primary)


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
    if isinstance(document, LengthsDocument):
        return ()
    return document.findings.primary.sentences


# --- Tuning ------------------------------------------------------------------------------------


def findings(numbers: tuning.Findings) -> Worded:
    """Return what can be said of a tuning, in words beside the figures."""
    seen = tuning.Seen(numbers.standing, numbers.comparisons, numbers.courses)
    searches = {"searches": tuple(map(_with_importance, numbers.searches))}
    return Worded(**{**vars(numbers), **searches, **said_of(numbers, seen)})


def said_of(numbers: tuning.FindingsOf[Any, Any], seen: tuning.Seen) -> dict[str, Any]:
    """Return in words what searches are compared by: fields of a tuning's findings."""
    min_effect = seen.comparisons[0].min_effect if seen.comparisons else 0.0
    metric = Metric(numbers.labels[0], numbers.better[0], min_effect)
    comparisons = tuple(in_words(c, "search") for c in seen.comparisons)
    margins = {(c.variant, c.baseline): c.min_effect for c in comparisons}
    return {
        "standing": standing(seen.standing, "search") if seen.standing else "",
        "comparisons": comparisons,
        "sentences": tuple(sentence(c, metric, "search") for c in comparisons),
        "courses": tuple(
            courses.in_words(
                course, numbers.design, margins.get(course.pair, 0.0), courses.OF_SEARCHES
            )
            for course in seen.courses
            if numbers.design
        ),
        "min_effect": min_effect,
    }


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


def foremost(numbers: Worded) -> Reading:
    """Return the comparisons that answer a tuning's question; their unit is a search.

    Of several variants these are with each other, of a single one with its preset's own values.
    """
    said = list(zip(numbers.comparisons, numbers.sentences, strict=True))
    if len(numbers.variants) > 1:
        said = [(c, text) for c, text in said if c.baseline != untuned(c.variant)]
    return Reading(
        title="tuned equally",
        metric=numbers.objectives[0],
        label=numbers.labels[0],
        better=numbers.better[0],
        min_effect=numbers.min_effect,
        comparisons=tuple(c for c, _ in said),
        sentences=tuple(text for _, text in said),
    )


def _of_tuning(document: TuningDocument) -> tuple[Tone, str]:
    numbers, searches = document.findings, document.findings.searches
    if document.status == "partial":
        return "open", f"Nothing can be claimed yet: {progress(searches)}."
    if len(searches) == 1:
        return "told", winner(numbers, searches[0])
    compared = foremost(numbers).comparisons
    if any(comparison.verdict for comparison in compared):
        if len(compared) > 1:
            return several(compared)
        return tone(compared[0]), with_size(compared[0], foremost(numbers))
    if len(numbers.variants) == 1:
        return "told", _reported(numbers)
    if not compared:
        return "open", "Nothing is compared here: no search has a figure on fresh seeds."
    means, label = " and ".join(_means(numbers)), numbers.labels[0]
    says = f"No verdict: on fresh seeds {label} is {means}; {compared[0].standing}."
    return "open", says


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
    before = [search.untuned for search in numbers.searches if search.untuned is not None]
    count = plural(len(numbers.searches), "search")
    if not known:
        return f"None of {count} of {numbers.variants[0]} has a figure on fresh seeds."
    says = f"On fresh seeds the winners of {count} reach {numbers.labels[0]} {_ends(known)}"
    return says + (f"; the preset's own values {_ends(before)}." if before else ".")


def _ends(values: Sequence[float]) -> str:
    places = decimals(values)
    return f"{number(min(values), places)} to {number(max(values), places)}"


def _means(numbers: Worded) -> Iterator[str]:
    """Yield the mean of each variant's searches on set B, as compared."""
    for variant in numbers.variants:
        of = [search for search in numbers.searches if search.variant == variant]
        tuned, before = _mean(s.reported for s in of), _mean(s.untuned for s in of)
        if tuned is not None:
            untuned = "" if before is None else f", untuned {number(before)}"
            yield f"{number(tuned)} ({variant}{untuned})"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


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
    reported = f"{numbers.labels[0]} {number(search.reported, places)}"
    if best.is_presets:
        return (
            f"The search chose nothing better than what it began from: on fresh seeds the preset's "
            f"own values reach {reported}."
        )
    says = f"On fresh seeds trial {best.number}'s values reach {reported}"
    if search.searched is not None:
        said = number(search.searched, places)
        says += f"; the search said {said}, {optimism(search.optimism, places)}"
    return f"{says}. {' '.join(beside_the_preset(numbers, search))}".strip()


def role(candidate: Candidate, search: SearchFindings) -> str:
    """Return what values are that were trained again, in brackets: the chosen, the preset's."""
    roles = ["chosen"] * (candidate.number == search.chosen)
    roles += ["the preset's own"] * candidate.is_presets
    return f" ({', '.join(roles)})" if roles else ""


def beside_the_preset(
    numbers: tuning.FindingsOf[Any, Any], search: SearchFindings
) -> Iterator[str]:
    """Yield what the preset's own values reach on the seeds of a winner, if they are another's."""
    own, best = search.presets, search.winner
    if own is None or best is None or best.is_presets or not own.on_b:
        return
    if search.untuned is None or search.reported is None:
        if search.untuned is None:
            yield "Runs of the preset's own values were lost there."
        return
    lower = search.reported < search.untuned
    way = "better" if lower == (numbers.better[0] == "lower") else "worse"
    places = decimals([search.reported, search.untuned])
    apart = number(abs(search.reported - search.untuned), places)
    same = search.reported == search.untuned
    yield (
        f"The preset's own values reach {number(search.untuned, places)} there: the winner is "
        f"{'as good' if same else f'{way} by {apart}'}, of {plural(len(own.on_b), 'run')} each "
        "and one search."
    )


def optimism(difference: float | None, places: int | None = None) -> str:
    """Return by how much a search's own figure was off, in words."""
    if not difference:
        return "the same"
    way = "optimistic" if difference > 0 else "pessimistic"
    return f"{number(abs(difference), places)} too {way}"
