"""What a tuning found, for the terminal."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import command
from sagan_bench.cli.signals import SOME_FAILED
from sagan_bench.cli.tables import fits, number, print_table

if TYPE_CHECKING:
    from sagan_bench.experiments.tuning.findings import Findings, FindingsOf
    from sagan_bench.experiments.tuning.searched import SearchFindings
    from sagan_bench.report.document import TuningFindings

SHOWN = 10
"""Trials of a search that are printed, the best first."""


def print_tuning(numbers: "Findings", folder: Path, as_json: bool) -> None:
    """Print what each search found, then what can be said of the variants."""
    from sagan_bench.report import answers

    findings = answers.findings(numbers)
    if as_json:
        print(json.dumps(asdict(findings), indent=2))
        return
    from sagan_bench.experiments.tuning.findings import looked

    say(
        f"{findings.name}: {', '.join(findings.variants)} in space {findings.space}, preset "
        f"{findings.preset}; {findings.steps} steps a trial, sampler {findings.sampler}, pruner "
        f"{findings.pruner}"
    )
    say()
    for search in findings.searches:
        _print_search(findings, search)
    if findings.standing:
        what = "Equal tuning" if len(findings.variants) > 1 else "Against the preset's own values"
        say(f"{what}; the unit is a search; {findings.standing}:")
    for sentence in (*findings.sentences, *(course.sentence for course in findings.courses)):
        say(f"  {sentence}")
    if findings.looks:
        say(looked(findings.looks))
    say(f"tuning:    {folder}")
    say(f"dashboard: optuna-dashboard {findings.storage}")
    for search in findings.searches:
        if search.reported is not None and search.index == 0:
            extra = ["--variant", search.variant] if len(findings.variants) > 1 else []
            say(f"next:      {command('train', '--from-study', folder.name, *extra)}")


def exit_if_failed(findings: "Findings", confirm: bool) -> None:
    """End with 3 if a trial or a run on fresh seeds failed; a diverged one is data."""
    begun = [(search, trial) for search in findings.searches for trial in search.trials]
    failed = [
        f"trial {trial.number} of {search.id} failed: {trial.reason}"
        for search, trial in begun
        if trial.outcome == "failed"
    ]
    lost = [
        f"{search.id}: a run of trial {candidate.number} at seed {seed} failed"
        for search in findings.searches
        for candidate in search.candidates
        for seed in candidate.failed
    ]
    without = [
        f"{search.id}: {search.missing} runs on fresh seeds left no record; "
        "the same command makes them"
        for search in findings.searches
        if confirm and search.missing
    ]
    interrupted = [
        f"trial {trial.number} of {search.id} was interrupted; the same command goes on with it"
        for search, trial in begun
        if trial.outcome == "interrupted"
    ]
    again = "what failed on fresh seeds is tried again with --retry-failed"
    retried = [f"{again}; on set A only before set B is begun"] if lost else []
    lines = [*failed, *lost, *without, *interrupted, *retried]
    for line in lines:
        say(line, error=True)
    if lines:
        raise typer.Exit(SOME_FAILED)


def verdict(findings: "FindingsOf[Any, Any]", search: "SearchFindings") -> str:
    """Return in a sentence what a search's winner is worth."""
    from sagan_bench.report.answers import beside_the_preset, optimism

    label, winner = findings.labels[0], search.winner
    if not search.best_so_far and search.is_over:
        return f"{search.id}: no trial was completed, so there is no winner"
    if winner is None:
        return f"{search.id}: no winner yet; {search.missing} runs on fresh seeds to come"
    if search.reported is None:
        lost = sum(value is None for value in winner.on_b.values())
        why = (
            f"{search.missing} runs to come"
            if search.missing
            else f"{lost} runs diverged or failed"
        )
        return f"{search.id}: trial {winner.number}; on set B {why}"
    seeds = ", ".join(map(str, winner.on_b))
    reached = f"{label} {number(search.reported)} on fresh seeds {seeds}"
    if winner.is_presets:
        return f"{search.id}: nothing better than the preset's own values: {reached}"
    says = f"{search.id}: trial {winner.number}: {reached}"
    if search.searched is not None:
        says += f"; its search said {number(search.searched)}, {optimism(search.optimism)}"
    beside = (text[0].lower() + text[1:-1] for text in beside_the_preset(findings, search))
    return "; ".join([says, *beside])


def _print_search(findings: "TuningFindings", search: "SearchFindings") -> None:
    budget = search.budget
    counts = ", ".join(f"{count} {outcome}" for outcome, count in budget.trials.items() if count)
    say(verdict(findings, search))
    saved = 1 - budget.steps / budget.steps_unpruned if budget.steps_unpruned else 0.0
    say(
        f"budget: {sum(budget.trials.values())} of {budget.asked_for} trials ({counts}); "
        f"{budget.steps:,} steps, {saved:.0%} saved by pruning; {budget.seconds:.0f} seconds"
    )
    _print_trials(findings, search)
    _print_candidates(findings, search)
    weighed = search.importance
    if weighed.shares is None:
        say(f"importance ({weighed.evaluator}): not said: {weighed.absent}")
        say()
        return
    rows = [[key, f"{share:.0%}"] for key, share in weighed.shares.items()]
    print_table("", (f"importance ({weighed.evaluator})", "share"), rows)


def _print_trials(findings: "TuningFindings", search: "SearchFindings") -> None:
    best_then = dict(search.best_so_far)
    sign = -1 if findings.better[0] == "higher" else 1
    order = sorted(
        search.trials,
        key=lambda t: (t.number not in search.front, sign * t.values[0] if t.values else math.inf),
    )
    rows = [
        [
            str(trial.number),
            trial.outcome,
            *(number(value) for value in trial.values or [None] * len(findings.labels)),
            number(best_then.get(trial.number)),
            str(trial.steps),
            *(_shown(trial.params.get(axis.key)) for axis in search.axes),
        ]
        for trial in order[:SHOWN]
    ]
    names = [axis.key.rpartition(".")[2] for axis in search.axes]
    header = ("trial", "outcome", *findings.labels, "best so far", "steps", *names)
    if not fits(header, rows):  # the values together then, folded between them
        first = len(header) - len(names)
        texts = (", ".join(map(" ".join, zip(names, row[first:], strict=True))) for row in rows)
        rows = [[*row[:first], text] for row, text in zip(rows, texts, strict=True)]
        header = (*header[:first], "values")
    print_table("", header, rows, left=("values",))
    if len(order) > SHOWN:
        say(f"{len(order) - SHOWN} more trials: --json has them all")


def _print_candidates(findings: "TuningFindings", search: "SearchFindings") -> None:
    from sagan_bench.report.answers import role

    rows = [
        [
            f"{candidate.number}{role(candidate, search)}",
            number(candidate.searched),
            ", ".join(map(number, candidate.on_a.values())),
            ", ".join(map(number, candidate.on_b.values())),
        ]
        for candidate in search.candidates
    ]
    if rows:
        header = ("again, trial", f"search's {findings.labels[0]}", "on set A", "on set B")
        print_table("", header, rows)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
