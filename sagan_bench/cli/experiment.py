"""A study in short, for the terminal: what it is, how far it is, and what its runs came to."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sagan_bench.cli.console import say
from sagan_bench.cli.options import command, program
from sagan_bench.cli.tables import number, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.experiments.study import Study, StudyManifest
    from sagan_bench.runs.records import Record


def show_study(folder: Path, as_json: bool) -> None:
    """Print what a study is and how far it is; what can be claimed says ``compare``.

    Raises:
        UserError: what the folder keeps of it is damaged, or no record of it can be read.
    """
    from sagan_bench.experiments.study import StudyManifest
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.run_directory import read_all

    memory = StudyManifest.of(folder)
    if memory is None:
        raise UserError(f"no study is in {folder}; begin one with `{program()} ablate`")
    runs = read_all(find_runs(folder))
    if as_json:
        print(json.dumps(_data(memory, runs), indent=2))
        return
    from sagan_bench.cli.record import print_facts
    from sagan_bench.report.repeating import of_study

    records, study = [record for _, record in runs], memory.study
    counts = Counter(record.status for record in records)
    left = len(study.cells) - len(records)
    states = [f"{count} {status}" for status, count in counts.items()]
    states += [f"{left} not begun"] if left > 0 else []
    say(f"{study.name}: {study.question}")
    say(f"{folder}: {len(study.cells)} cells: {', '.join(states)}")
    _print_settings(study)
    _print_scores(study, folder)
    if records:
        print_facts(records)
    if not study.command:
        say(f"samples: {folder / '*' / 'samples'}")
    place = folder if folder.name not in ("", "..") else folder.resolve()
    where: list[object] = []
    where += ["--runs", place.parent] if place.parent != Path("runs") else []
    where += ["--name", place.name] if place.name != study.name else []
    if again := of_study(memory, *where):
        say(f"again:   {again}")
    say(f"next:    {command('compare', folder)}; {command('report', folder)}")


def _data(memory: "StudyManifest", runs: "Sequence[tuple[Path, Record]]") -> dict[str, Any]:
    """Return all that a study's folder keeps, and of each run where it is and how far."""
    told = ("variant", "seed", "status", "reason", "step", "steps")
    cells = [
        {"path": str(path), **record.model_dump(mode="json", include=set(told))}
        for path, record in runs
    ]
    return {**memory.model_dump(mode="json"), "runs": cells}


def _print_settings(study: "Study") -> None:
    """Print what its runs are made of."""
    if study.command:
        say(f"made by: {study.command}")
        return
    sets = {key: value for key, value in study.settings.items() if key != "data.source"}
    said = ", ".join(f"{key} = {json.dumps(value)}" for key, value in sets.items())
    say(f"preset:  {study.preset}{f', with {said}' if said else ''}")


def _print_scores(study: "Study", folder: Path) -> None:
    """Print by what a study is decided, and each variant's mean of that over its runs."""
    from sagan_bench.analysis.gathering import gather
    from sagan_bench.runs.finding import find_runs

    measure = study.measure
    matters = f"a difference of {measure.min_effect} matters; seeds {_listed(study.seeds)}"
    try:
        runs = gather(find_runs(folder), planned=study.cells)
    except UserError as error:
        say(f"decides: the metric {measure.metric}; {matters}")
        say(f"scores:  none to show: {error}")
        return
    say(f"decides: {runs.label(measure.metric)}; {matters}")
    rows = []
    for variant, of_variant in runs.variants.items():
        values = [runs.value(run, measure.metric) for run in of_variant if not run.lost]
        known = [value for value in values if value is not None]
        lost = len(of_variant) - len(known)
        rows.append([variant, number(fmean(known)) if known else "—", str(len(known)), str(lost)])
    if not rows:
        say("scores:  none yet")
        return
    print_table("", ("variant", f"mean {runs.label(measure.metric)}", "runs", "without"), rows)


def _listed(seeds: Sequence[int]) -> str:
    """Return seeds as they are typed: ``0-4``, or ``0,2,5``."""
    first, last = min(seeds), max(seeds)
    in_a_row = tuple(seeds) == tuple(range(first, last + 1)) and last > first
    return f"{first}-{last}" if in_a_row else ",".join(map(str, seeds))
