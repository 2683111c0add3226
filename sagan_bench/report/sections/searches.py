"""Each search of a tuning: history, parameters, the best on fresh seeds, and all its trials."""

from collections.abc import Callable, Iterator
from typing import Any

from markupsafe import Markup

from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.core.registry import SECTIONS
from sagan_bench.experiments.tuning.searched import SearchFindings
from sagan_bench.experiments.tuning.winners import best_name
from sagan_bench.report import answers
from sagan_bench.report.document import TuningDocument, TuningFindings
from sagan_bench.report.formats import MISSING, decimals, duration, number, plural, short, shown
from sagan_bench.report.frames import Cell, Column, Frame, Row, Values, to_csv
from sagan_bench.report.sections import _searching
from sagan_bench.report.sections._base import (
    Block,
    Charts,
    Code,
    Export,
    Fold,
    Heading,
    Part,
    Section,
    Shares,
    Terms,
    Text,
)
from sagan_bench.report.svg import Theme

FOLDED_SEARCHES, FOLDED_TRIALS = 5, 13
"""Searches of a page, trials of a search, from which on they are shown on demand."""
LOST = ("diverged", "failed")


@SECTIONS.register("searches")
class Searches(Section):
    """Each search: history, parameters, the best on fresh seeds, and all its trials."""

    order = 10
    title = "Searches"
    of = ("tuning",)

    def render(self, document: TuningDocument, theme: Theme) -> Iterator[Block]:
        """Yield a block for each search, the first with the files of all."""
        numbers = document.findings
        several = len(numbers.searches) > len(numbers.variants)
        for place, search in enumerate(numbers.searches, 1):
            parts = list(_details(place, search, document))
            if len(numbers.searches) >= FOLDED_SEARCHES:
                parts = [Fold("Figures and trials", parts)]
            progress = f"Not over: {answers.progress([search])}."
            says = answers.winner(numbers, search) if search.is_over else progress
            name = f"{search.variant}, search {search.index + 1}" if several else search.variant
            yield Block(
                f"search-{place}",
                name,
                (Text(says), Terms(_spent(search), "facts"), *parts),
                look=search.variant,
                exports=tuple(_exports(document)) if place == 1 else (),
            )


def _details(place: int, search: SearchFindings, document: TuningDocument) -> Iterator[Part]:
    numbers = document.findings
    yield Charts(tuple(_searching.charts(place, search, numbers)))
    if search.candidates:
        yield _candidates(place, search, numbers)
    yield Heading("Importance of the parameters")
    weighed = search.importance
    if weighed.shares:
        yield Text(f"Shares of what varied the objective, by {weighed.evaluator}.", "note")
        yield Shares(weighed.shares)
    else:
        yield Text(f"Not said: {weighed.absent} ({weighed.evaluator}).", "note")
    trials = _trials(place, search, numbers)
    many = len(trials.rows) >= FOLDED_TRIALS
    yield Fold(f"All {len(trials.rows)} trials", (trials,)) if many else trials
    if search.variant in document.winners and place <= len(numbers.variants):
        summary = Markup("The winner as a file for <code>train --config</code>")
        yield Fold(summary, (Code(document.winners[search.variant]),))


def _spent(search: SearchFindings) -> tuple[tuple[str, str], ...]:
    budget = search.budget
    counts = ", ".join(f"{count} {outcome}" for outcome, count in budget.trials.items() if count)
    saved = 1 - budget.steps / budget.steps_unpruned if budget.steps_unpruned else 0.0
    return (
        ("Trials", f"{len(search.trials)} of {budget.asked_for}: {counts or 'none yet'}"),
        ("Steps", f"{budget.steps:,}; pruning saved {saved:.0%}"),
        ("Training and scoring", duration(budget.seconds)),
    )


# --- Tables ------------------------------------------------------------------------------------


def _candidates(place: int, search: SearchFindings, numbers: TuningFindings) -> Frame:
    """Return the trials that were trained again, with every run of theirs."""
    label, better = numbers.labels[0], numbers.better[0]
    level = decimals(candidate.searched for candidate in search.candidates)
    columns = (
        Column("trial", "Trial", numeric=False),
        Column("searched", f"{label} in the search", better=better, places=level),
        Column("on_a", "Set A, by seed", numeric=False, more=True),
        Column("mean_a", "Mean on A", better=better, places=level),
        Column("on_b", "Set B, by seed", numeric=False, more=True),
        Column("mean_b", "Mean on B", better=better, places=level),
        *_parameters(search),
    )
    rows = []
    for candidate in search.candidates:
        values: dict[str, Any] = {
            "trial": f"{candidate.number}{answers.role(candidate, search)}",
            "searched": candidate.searched,
        }
        for name, runs in (("a", candidate.on_a), ("b", candidate.on_b)):
            by_seed = ", ".join(f"{seed}: {number(value, level)}" for seed, value in runs.items())
            values |= {f"on_{name}": by_seed or MISSING, f"mean_{name}": mean_of_all(runs.values())}
        is_chosen = candidate.number == search.chosen
        rows.append(Row(values | _params(candidate.params, search), pinned=is_chosen))
    return Frame(f"fresh-{place}", f"The best trials of {search.id} on fresh seeds", columns, rows)


def _trials(place: int, search: SearchFindings, numbers: TuningFindings) -> Frame:
    """Return every trial of a search."""
    front = search.front if len(numbers.labels) > 1 else ()

    def outcome(row: Values) -> Cell:
        says = row["outcome"] + (f": {row['reason']}" if row["reason"] else "")
        says += ", on the front" if row["trial"] in front else ""
        return Cell(says, row["outcome"], tone="worse" if row["outcome"] in LOST else None)

    objectives = zip(numbers.objectives, numbers.labels, numbers.better, strict=True)
    columns = (
        Column("trial", "Trial"),
        Column("outcome", "Outcome", outcome, numeric=False),
        *(Column(key, label, better=way) for key, label, way in objectives),
        Column("last_score", "Last score on the way"),
        Column("steps", "Steps"),
        *_parameters(search),
        Column("seconds", "Time", lambda row: duration(row["seconds"])),
    )
    rows = [
        Row(row, key=_searching.trial_row(place, row["trial"]), status=row["outcome"])
        for row in _trial_rows(search, numbers)
    ]
    caption = f"All {plural(len(search.trials), 'trial')} of {search.id}"
    return Frame(f"trials-{place}", caption, columns, rows)


def _trial_rows(search: SearchFindings, numbers: TuningFindings) -> Iterator[dict[str, Any]]:
    for trial in search.trials:
        reached = trial.values or [None] * len(numbers.objectives)
        yield {
            "search": search.id,
            "variant": search.variant,
            "trial": trial.number,
            "outcome": trial.outcome,
            **dict(zip(numbers.objectives, reached, strict=True)),
            "last_score": trial.curve[-1][1] if trial.curve else None,
            "steps": trial.steps,
            "seconds": trial.seconds,
            "reason": trial.reason,
            **_params(trial.params, search),
        }


def _params(params: Values, search: SearchFindings) -> dict[str, Any]:
    return {axis.key: params.get(axis.key) for axis in search.axes}


def _parameters(search: SearchFindings) -> Iterator[Column]:
    for axis in search.axes:
        numeric = axis.scale != "categorical"
        yield Column(axis.key, short(axis.key), _sampled(axis.key), numeric, help=axis.key)


def _sampled(key: str) -> Callable[[Values], Cell]:
    """Return what shows a sampled value, rounded: the winner's file has all its digits."""

    def cell(row: Values) -> Cell:
        value = row[key]
        text = f"{value:.3g}" if isinstance(value, float) else shown(value)
        return Cell(text, value if isinstance(value, int | float) else None)

    return cell


# --- Files -------------------------------------------------------------------------------------


def _exports(document: TuningDocument) -> Iterator[Export]:
    numbers = document.findings
    labels = "; ".join(numbers.labels)  # a column called fid may hold another extractor's
    rows = (row for search in numbers.searches for row in _trial_rows(search, numbers))
    trials = [{**row, "label": labels} for row in rows]
    fresh = [
        {
            "search": search.id,
            "variant": search.variant,
            "trial": candidate.number,
            "chosen": candidate.number == search.chosen,
            "set": name,
            "seed": seed,
            numbers.objectives[0]: value,
            "in_search": candidate.searched,
            "label": numbers.labels[0],
        }
        for search in numbers.searches
        for candidate in search.candidates
        for name, runs in (("A", candidate.on_a), ("B", candidate.on_b))
        for seed, value in runs.items()
    ]
    yield Export({"trials.csv": to_csv(trials)}, "one row a trial")
    yield Export({"fresh.csv": to_csv(fresh)}, "one row a run on fresh seeds")
    about = Markup("the winner, for <code>python cli.py train --config</code>")
    for variant, winner in document.winners.items():
        yield Export({best_name(variant): winner}, about)
