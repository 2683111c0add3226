"""The document of a tuning -> one HTML page, like that of a study."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.core.trees import flatten
from sagan_bench.experiments.tuning.findings import Importance, SearchFindings
from sagan_bench.experiments.tuning.planning import best_name
from sagan_bench.experiments.tuning.trials import Candidate, Trial
from sagan_bench.report import answers, figures, figures_tuning, formats, text
from sagan_bench.report.document import TuningDocument
from sagan_bench.report.document import TuningFindings as Findings
from sagan_bench.report.figures_tuning import Again, Point, Strand
from sagan_bench.report.formats import MISSING, decimals, duration, number, plural
from sagan_bench.report.page import fill, marks
from sagan_bench.report.plots import Drawn, drawn
from sagan_bench.report.tables import Cell, Column, Row, Table
from sagan_bench.report.text import Tone

TONES: dict[str, Tone] = {"diverged": "worse", "failed": "worse"}
METHOD = (
    "Every trial of a search trains at the search's one seed; trial 0 has the preset's own values.",
    "The best three train again on fresh seeds (set A), and the best of them there is chosen.",
    "It trains once more on other fresh seeds (set B), on which nothing is chosen: that counts.",
    "Several variants have equally many trials, one budget and pruner, and one space minus what "
    "they lack.",
    "The unit of a comparison is a search, not a run; verdicts need five searches a variant.",
    "A diverged trial counts as the worst value so far and teaches the sampler where not to go.",
)
NOT_CLAIMED = (
    "That a winner's values beat the preset's is not shown: only winners are trained on set B.",
    "Nothing is said about longer trainings: values were found at the budget of a trial.",
    "Importance says what varied the objective in this search, not what matters elsewhere.",
    "Nothing is said about values outside the space.",
)
GLOSSARY = {
    "trial": "One training run with values that the sampler proposed.",
    "pruned": "Ended early, because its scores on the way were among the worst.",
    "set A, set B": "Training seeds that the search never saw: to choose on, and to report.",
    "too optimistic": "By how much the search's own figure flatters the winner: the best of many "
    "noisy figures is partly luck.",
}


@dataclass(frozen=True)
class Shown:
    """A search in the page."""

    id: str
    name: str
    variant: str
    answer: str
    facts: tuple[tuple[str, str], ...]
    figures: tuple[Drawn, ...]
    candidates: Table
    importance: Importance
    trials: Table


def render(document: TuningDocument) -> str:
    """Return the page.  The same document gives the same bytes."""
    found = document.findings
    reading = answers.reading(found)
    return fill(
        "tuning.html",
        document,
        marks=marks(figures.looks(found.variants)),
        facts=_facts(document),
        sure=text.sureness(reading, document.status, "search"),
        claims=text.claims(reading, document.status, "search"),
        records=document.runs_over,
        searches=[_shown(number, one, found) for number, one in enumerate(found.searches, 1)],
        space=_space(found),
        best_name=best_name,
        method=METHOD,
        not_claimed=NOT_CLAIMED,
        glossary=GLOSSARY,
        protocol=document.protocol,
        settings=list(flatten(document.config)),
    )


def _facts(document: TuningDocument) -> list[tuple[str, str]]:
    """Return what the figures rest on, in the head of the page."""
    found, protocol = document.findings, document.protocol
    searches = len(found.searches)
    trials = sum(len(one.trials) for one in found.searches)
    facts = [
        ("Searches", f"{plural(searches, 'search')} of {plural(len(found.variants), 'variant')}, "
         f"{plural(trials, 'trial')}"),
        ("Data", f"{document.data.get('kind', '?')}, {document.config['data']['image_size']} px"),
        ("Budget of a trial", f"{found.steps:,} updates of G; preset {found.preset}"),
        ("Searched by", f"{found.sampler.upper()}, pruner {found.pruner}, space {found.space}"),
    ]  # fmt: skip
    if protocol:
        facts.append(
            ("Scored by", f"{found.labels[0]}; {protocol['n_fake']:,} generated against "
             f"{protocol['n_real']:,} real images")
        )  # fmt: skip
    if document.finished_at:
        facts.append(("Last run ended", f"{document.finished_at[:16].replace('T', ' ')} UTC"))
    return facts


def _shown(place: int, one: SearchFindings, found: Findings) -> Shown:
    several = len(found.searches) > len(found.variants)
    return Shown(
        id=f"search-{place}",
        name=f"{one.variant}, search {one.index + 1}" if several else one.variant,
        variant=one.variant,
        answer=answers.winner(found, one)
        if one.is_over
        else f"Not over: {answers.progress([one])}.",
        facts=_spent(one),
        figures=tuple(_figures(place, one, found)),
        candidates=_candidates(place, one, found),
        importance=one.importance,
        trials=_trials(place, one, found),
    )


def _spent(one: SearchFindings) -> tuple[tuple[str, str], ...]:
    budget = one.budget
    counts = ", ".join(f"{count} {outcome}" for outcome, count in budget.trials.items() if count)
    saved = 1 - budget.steps / budget.steps_unpruned if budget.steps_unpruned else 0.0
    return (
        ("Trials", f"{len(one.trials)} of {budget.asked_for}: {counts or 'none yet'}"),
        ("Steps", f"{budget.steps:,}; pruning saved {saved:.0%}"),
        ("Training and scoring", duration(budget.seconds)),
    )


# --- Figures -----------------------------------------------------------------------------------


def _figures(place: int, one: SearchFindings, found: Findings) -> Iterator[Drawn]:
    label, arrow = found.labels[0], text.ARROWS[found.better[0]]
    if not one.best_so_far:
        return
    _, best = one.best_so_far[-1]
    yield drawn(
        figures_tuning.history(_history(one), one.best_so_far, one.reported, f"{label} {arrow}"),
        f"history-{place}",
        f"Best {label} of {plural(len(one.trials), 'trial')}: {number(best)}"
        + (f"; on fresh seeds {number(one.reported)}" if one.reported is not None else ""),
        "Every trial that ended, a pruned one at its last score; the line is the best so far, "
        "chosen by looking. Dashed: what the winner reaches on fresh seeds (set B).",
    )
    yield drawn(
        figures_tuning.coordinates(_strands(one), one.axes, f"{label} {arrow}"),
        f"coordinates-{place}",
        f"Parameters of {plural(len(one.trials), 'trial')}; the best are {_named(one)}",
        "Parallel coordinates: a line is a trial, a row a parameter with its bounds or choices, "
        "the last row the objective. Coloured: those trained again on fresh seeds.",
    )
    if len(found.labels) > 1:
        yield _pareto(place, one, found)
    if again := [_again(candidate, one) for candidate in one.candidates if candidate.on_a]:
        yield drawn(
            figures_tuning.fresh(again, f"{label} {arrow}"),
            f"fresh-{place}",
            f"{label} in the search and on fresh seeds: " + "; ".join(map(_told, again)),
            "What a search says of its best trials, and what they reach at seeds it never saw. "
            "Chosen on set A, reported on set B.",
        )


def _pareto(place: int, one: SearchFindings, found: Findings) -> Drawn:
    points = {t.number: (t.values[0], t.values[1]) for t in one.trials if t.values}
    first, second = (
        f"{label} {text.ARROWS[better]}"
        for label, better in list(zip(found.labels, found.better, strict=True))[:2]
    )
    return drawn(
        figures_tuning.pareto(points, one.front, first, second),
        f"front-{place}",
        f"On the Pareto front: trials {', '.join(map(str, one.front))}",
        "Every complete trial is a point; numbered are those that no other beats in all "
        "objectives. By the first objective three of them are trained again.",
    )


def _history(one: SearchFindings) -> list[Point]:
    def value(trial: Trial) -> float | None:
        if trial.values:
            return trial.values[0]
        return trial.curve[-1][1] if trial.curve else None

    return [Point(trial.number, trial.outcome, value(trial)) for trial in one.trials]


def _strands(one: SearchFindings) -> list[Strand]:
    """Return the trials across the parameters, the best last, so that they lie on top."""
    best = [candidate.number for candidate in one.candidates]
    strands = [
        Strand(
            f"trial {trial.number}" if trial.number in best else "",
            trial.params,
            trial.values[0] if trial.values else None,
        )
        for trial in one.trials
    ]
    return sorted(strands, key=lambda strand: strand.name)


def _named(one: SearchFindings) -> str:
    return ", ".join(str(candidate.number) for candidate in one.candidates) or "not chosen yet"


def _again(candidate: Candidate, one: SearchFindings) -> Again:
    chosen = " (chosen)" if candidate.number == one.chosen else ""
    known = ([v for v in of.values() if v is not None] for of in (candidate.on_a, candidate.on_b))
    return Again(f"trial {candidate.number}{chosen}", candidate.searched, *known)


def _told(again: Again) -> str:
    sets = (("set A", again.on_a), ("set B", again.on_b))
    means = (f"{name} {number(fmean(of))}" for name, of in sets if of)
    return f"{again.name} {number(again.searched)}, {', '.join(means)}"


# --- Tables ------------------------------------------------------------------------------------


def _candidates(place: int, one: SearchFindings, found: Findings) -> Table:
    """Return the trials that were trained again, with every run of theirs."""
    label, better = found.labels[0], found.better[0]
    columns = (
        Column("Trial", numeric=False),
        Column(f"{label} in the search", better=better),
        Column("Set A, by seed", numeric=False),
        Column("Mean on A", better=better),
        Column("Set B, by seed", numeric=False),
        Column("Mean on B", better=better),
        *_parameters(one),
    )
    level = decimals(candidate.searched for candidate in one.candidates)
    rows = tuple(_candidate(candidate, one, level) for candidate in one.candidates)
    return Table(f"fresh-{place}", f"The best trials of {one.id} on fresh seeds", columns, rows)


def _candidate(candidate: Candidate, one: SearchFindings, level: int) -> Row:
    chosen = " (chosen)" if candidate.number == one.chosen else ""
    cells = [
        Cell(f"{candidate.number}{chosen}"),
        Cell(number(candidate.searched, level), candidate.searched),
    ]
    for runs in (candidate.on_a, candidate.on_b):
        by_seed = ", ".join(f"{seed}: {number(v, level)}" for seed, v in runs.items())
        mean = mean_of_all(runs.values())
        cells += [Cell(by_seed or MISSING), Cell(number(mean, level), mean)]
    cells += [_value(candidate.params.get(axis.key)) for axis in one.axes]
    return Row(tuple(cells), pinned=bool(chosen))


def _trials(place: int, one: SearchFindings, found: Findings) -> Table:
    """Return every trial of a search."""
    columns = (
        Column("Trial"),
        Column("Outcome", numeric=False),
        *(Column(name, better=way) for name, way in zip(found.labels, found.better, strict=True)),
        Column("Last score on the way"),
        Column("Steps"),
        *_parameters(one),
        Column("Time"),
    )
    rows = tuple(_trial(trial, one, len(found.labels)) for trial in one.trials)
    caption = f"All {plural(len(one.trials), 'trial')} of {one.id}"
    return Table(f"trials-{place}", caption, columns, rows)


def _trial(trial: Trial, one: SearchFindings, objectives: int) -> Row:
    told = trial.outcome + (f": {trial.reason}" if trial.reason else "")
    if objectives > 1 and trial.number in one.front:
        told += ", on the front"
    last = trial.curve[-1][1] if trial.curve else None
    cells = (
        Cell(str(trial.number), trial.number),
        Cell(told, trial.outcome, tone=TONES.get(trial.outcome)),
        *(Cell(number(value), value) for value in trial.values or [None] * objectives),
        Cell(number(last), last),
        Cell(f"{trial.steps:,}", trial.steps),
        *(_value(trial.params.get(axis.key)) for axis in one.axes),
        Cell(duration(trial.seconds), trial.seconds),
    )
    return Row(cells, status=trial.outcome)


def _parameters(one: SearchFindings) -> Iterator[Column]:
    for axis in one.axes:
        yield Column(formats.short(axis.key), axis.scale != "categorical", help=axis.key)


def _value(value: Any) -> Cell:
    """Return a sampled value, rounded: the winner's file has all its digits."""
    text = f"{value:.3g}" if isinstance(value, float) else formats.shown(value)
    return Cell(text, value if isinstance(value, int | float) else None)


def _space(found: Findings) -> Table:
    """Return what was searched, and of which variants."""
    by_key = {axis.key: axis for one in found.searches for axis in one.axes}
    columns = (
        Column("Parameter", numeric=False),
        Column("Scale", numeric=False),
        Column("Values", numeric=False),
        Column("Searched of", numeric=False),
    )
    rows = []
    for key, axis in by_key.items():
        has = dict.fromkeys(one.variant for one in found.searches if axis in one.axes)
        values = (
            ", ".join(map(formats.shown, axis.choices))
            if axis.choices
            else f"{axis.low:g} to {axis.high:g}"
        )
        cells = (Cell(key), Cell(axis.scale), Cell(values), Cell(", ".join(has)))
        rows.append(Row(cells))
    return Table("space", "What was searched", columns, tuple(rows))
