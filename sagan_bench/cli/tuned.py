"""What a tuning found, for the terminal."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_bench.cli.console import say
from sagan_bench.cli.options import program
from sagan_bench.cli.tables import number, print_table

if TYPE_CHECKING:
    from sagan_bench.experiments.tuning.findings import Findings, FindingsOf, SearchFindings

SHOWN = 10
"""Trials of a search that are printed, the best first."""


def print_tuning(numbers: "Findings", folder: Path, as_json: bool) -> None:
    """Print what each search found, then what can be said of the variants."""
    from sagan_bench.report import answers

    found = answers.findings(numbers)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    from sagan_bench.experiments.tuning.findings import looked

    say(
        f"{found.name}: {', '.join(found.variants)} in space {found.space}, preset "
        f"{found.preset}; {found.steps} steps a trial, sampler {found.sampler}, pruner "
        f"{found.pruner}"
    )
    say()
    for one in found.searches:
        _print_search(found, one)
    if found.standing:
        say(f"Equal tuning; the unit is a search; {found.standing}:")
    for sentence in found.sentences:
        say(f"  {sentence}")
    if found.looks:
        say(looked(found.looks))
    say(f"tuning:    {folder}")
    say(f"dashboard: optuna-dashboard {found.storage}")
    for one in found.searches:
        if one.reported is not None and one.index == 0:
            extra = f" --variant {one.variant}" if len(found.variants) > 1 else ""
            say(f"next:      {program()} train --from-study {folder.name}{extra}")


def verdict(found: "FindingsOf[Any]", one: "SearchFindings") -> str:
    """Return in a sentence what a search's winner is worth."""
    from sagan_bench.report.answers import optimism

    label, winner = found.labels[0], one.winner
    if not one.best_so_far and one.is_over:
        return f"{one.id}: no trial was completed, so there is no winner"
    if winner is None:
        return f"{one.id}: no winner yet; {one.missing} runs on fresh seeds to come"
    if one.reported is None:
        lost = sum(value is None for value in winner.on_b.values())
        why = f"{one.missing} runs to come" if one.missing else f"{lost} runs diverged or failed"
        return f"{one.id}: trial {winner.number}; on set B {why}"
    seeds = ", ".join(map(str, winner.on_b))
    return (
        f"{one.id}: trial {winner.number}: {label} {number(one.reported)} on fresh seeds {seeds}; "
        f"its search said {number(one.searched)}, {optimism(one.optimism)}"
    )


def _print_search(found: "FindingsOf[Any]", one: "SearchFindings") -> None:
    budget = one.budget
    counts = ", ".join(f"{count} {outcome}" for outcome, count in budget.trials.items() if count)
    say(verdict(found, one))
    saved = 1 - budget.steps / budget.steps_unpruned if budget.steps_unpruned else 0.0
    say(
        f"budget: {sum(budget.trials.values())} of {budget.asked_for} trials ({counts}); "
        f"{budget.steps:,} steps, {saved:.0%} saved by pruning; {budget.seconds:.0f} seconds"
    )
    _print_trials(found, one)
    _print_candidates(found, one)
    weighed = one.importance
    if weighed.shares is None:
        say(f"importance ({weighed.evaluator}): not said: {weighed.absent}")
        say()
        return
    rows = [[key, f"{share:.0%}"] for key, share in weighed.shares.items()]
    print_table("", (f"importance ({weighed.evaluator})", "share"), rows)


def _print_trials(found: "FindingsOf[Any]", one: "SearchFindings") -> None:
    best_then = dict(one.best_so_far)
    sign = -1 if found.better[0] == "higher" else 1
    order = sorted(
        one.trials,
        key=lambda t: (t.number not in one.front, sign * t.values[0] if t.values else math.inf),
    )
    rows = [
        [
            str(trial.number),
            trial.outcome,
            *(number(value) for value in trial.values or [None] * len(found.labels)),
            number(best_then.get(trial.number)),
            str(trial.steps),
            *(_shown(trial.params.get(axis.key)) for axis in one.axes),
        ]
        for trial in order[:SHOWN]
    ]
    names = (axis.key.rpartition(".")[2] for axis in one.axes)
    print_table("", ("trial", "outcome", *found.labels, "best so far", "steps", *names), rows)
    if len(order) > SHOWN:
        say(f"{len(order) - SHOWN} more trials: --json has them all")


def _print_candidates(found: "FindingsOf[Any]", one: "SearchFindings") -> None:
    rows = [
        [
            f"{candidate.number}{' (chosen)' if candidate.number == one.chosen else ''}",
            number(candidate.searched),
            ", ".join(map(number, candidate.on_a.values())),
            ", ".join(map(number, candidate.on_b.values())),
        ]
        for candidate in one.candidates
    ]
    if rows:
        header = ("again, trial", f"search's {found.labels[0]}", "on set A", "on set B")
        print_table("", header, rows)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
