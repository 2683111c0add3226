"""The verb ``ablate``: run a study's missing runs, and say what can be claimed."""

import json
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.compare import print_findings
from sagan_bench.cli.console import say
from sagan_bench.cli.options import (
    Devices,
    Engine,
    InProcess,
    Jobs,
    Json,
    PresetFile,
    RetryFailed,
    Runs,
    Sets,
    With,
    load_own,
    load_presets,
    program,
    refuse_wrong,
)
from sagan_bench.cli.running import Where, carry_out
from sagan_bench.cli.signals import SOME_FAILED
from sagan_bench.cli.tables import changes, duration, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.execution.engine import Engine as AnyEngine
    from sagan_bench.execution.slots import Slot
    from sagan_bench.experiments.grid import GridPoint, Plan
    from sagan_bench.experiments.study import Study
    from sagan_bench.session.events import Stop


StudyName = Annotated[
    str | None,
    typer.Argument(help="A study's name or TOML file; see: list studies [default: quick]"),
]
Measure = Annotated[
    bool, typer.Option("--measure", help="With --dry-run: time a step here, data or not")
]
Folder = Annotated[
    str | None, typer.Option("--name", help="Folder below --runs [default: the study's]")
]
CommandLine = Annotated[
    str | None,
    typer.Option("--command", help="Makes a cell, with {seed}, {out}, {variant} and the study's"),
]


def ablate(
    study: StudyName = None,
    data: Annotated[str | None, typer.Option(help="Put the question to other images")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds to run, e.g. 0-4")] = None,
    only: Annotated[str | None, typer.Option(help="Variants to run, e.g. sagan,wider")] = None,
    jobs: Jobs = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Generator updates of each cell")] = None,
    preset: Annotated[str | None, typer.Option(help="Begin with this preset instead")] = None,
    preset_file: PresetFile = None,
    sets: Sets = None,
    with_: With = None,
    name: Folder = None,
    command: CommandLine = None,
    runs: Runs = Path("runs"),
    device: Devices = "auto",
    engine: Engine = "processes",
    in_process: InProcess = False,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing")] = False,
    measure: Measure = False,
    as_json: Json = False,
) -> None:
    """Run a study: every variant at every seed, and what the comparison says.

    The same command again runs only what is missing.
    """
    from sagan_bench.core import extensions
    from sagan_bench.experiments import ablation
    from sagan_bench.experiments.written import parse_seeds

    if measure and not dry_run:
        raise UserError("--measure says what a study would cost; add --dry-run")
    where = Where.of(jobs, device, engine, in_process)
    fields = {"preset": preset, "command": command, "names": load_presets(preset_file) or None}
    requested = _requested(study, data, steps, sets or [], with_, **fields)
    planned = ablation.plan(
        requested, ablation.folder_of(requested, runs, name), where.host,
        seeds=() if seeds is None else parse_seeds(seeds), retry=retry_failed,
        only=tuple(only.split(",")) if only else (), without_data=dry_run and measure,
    )  # fmt: skip
    if dry_run:
        _print_plan(planned, where, measure, as_json)
    else:
        if planned.missing:
            study_own = planned.manifest.study.own
            loaded = extensions.require(requested.own)
            refuse_wrong([*loaded, *extensions.require(study_own, planned.folder)])
            planned = _run(planned, where)
        _conclude(planned, as_json)


def _requested(
    study: str | None,
    data: str | None,
    steps: int | None,
    sets: list[str],
    with_: list[Path] | None,
    **fields: Any,
) -> "Study":
    """Return the study that is asked for; blocks of ``with_`` join it, or are one by themselves."""
    from sagan_bench.config.layers import parse_set
    from sagan_bench.experiments.own_studies import components_in, files_of, of_files
    from sagan_bench.experiments.study import load

    files = [*(with_ or ()), *(files_of(study) if study else ())]
    own = {file.name: file.described for file in load_own(files)}
    joining = [file.stem for file in with_ or ()]
    if fields.get("command") and study is None:
        raise UserError("--command needs a study of your own: ablate FILE.toml (docs/own.md)")
    settings: dict[str, Any] = dict(map(parse_set, sets))
    if data:
        settings["data.source"] = data
    if steps:
        settings["run.steps"] = steps
    given = {key: value for key, value in fields.items() if value is not None}
    if own and study is None:
        return of_files(own, set=settings, **given)
    requested = load(study or "quick", set=settings, own=own, **given)
    theirs = requested.all_variants
    blocks = components_in({stem: own[stem] for stem in joining}, "ATTENTION")
    more = (block for block in blocks if block not in theirs)
    return requested.model_copy(update={"variants": (*requested.variants, *more)})


def _run(planned: "Plan", where: Where) -> "Plan":
    """Run what is missing, and return the plan as it then stands."""
    from sagan_bench.cli.grid import GridView
    from sagan_bench.experiments import ablation

    def run(ready: "Plan", engine: "AnyEngine", stop: "Stop", jobs: int) -> None:
        _announce(ready, jobs)
        with GridView(ready) as view:
            ablation.run(ready, engine, view.follow, stop)

    prepared = partial(ablation.with_data, planned)
    return carry_out(planned.folder, where, len(planned.points), prepared, run).refreshed()


def _announce(planned: "Plan", jobs: int) -> None:
    study = planned.manifest.study
    say(f"{study.name}: {study.question}", error=True)
    baselines = dict(study.pairs)
    for variant, differs in planned.differences().items():
        say(f"  {variant} against {baselines[variant]}: {changes(differs)}", error=True)
    left = planned.seconds_left(jobs)
    about = f", about {duration(left)}" if left else ""
    print(
        f"{len(planned.missing)} of {len(planned.points)} cells to run, {jobs} at a time{about}",
        file=sys.stderr,
    )


def _seconds_per_flop(planned: "Plan", slot: "Slot") -> float:
    """Return what a step of the first run takes in a slot, over its FLOPs.

    Runs that share a GPU take as long as they would one after the other.
    """
    import torch

    from sagan_bench.core import precision, system
    from sagan_bench.training.timing import seconds_per_flop

    config = planned.points[0].ours
    precision.use(config.training.precision)
    torch.set_num_threads(slot.threads)
    device = system.open_device(slot.device)
    with system.memory_for("timing a step", device):
        alone = seconds_per_flop(config, device)
    return alone if slot.device == "cpu" else alone * slot.shared_by


# --- The plan ------------------------------------------------------------------------------------


STATES: dict[str | None, str] = {
    None: "new",
    "interrupted": "resumable",
    "running": "running",
    "finished": "done",
    "diverged": "diverged",
    "failed": "failed",
}
"""The status of a run -> what a plan calls it."""


def _print_plan(planned: "Plan", where: Where, measure: bool, as_json: bool) -> None:
    from sagan_bench.execution.slots import slots

    shared = slots(where.jobs, where.device, len(planned.points))
    if measure and planned.manifest.study.command is not None:
        raise UserError("--measure times a step of runs that this package makes; leave it out")
    per_flop = _seconds_per_flop(planned, shared[0]) if measure else None
    if as_json:
        _print_json(planned, len(shared), per_flop)
        return
    study, missing = planned.manifest.study, planned.missing
    say(f"{study.name}: {study.question}")
    _print_table(planned)
    for name, words in _own_variants(planned).items():
        say(f"{name}: {words}")
    left = planned.seconds_left(len(shared), per_flop)
    unknown = "unknown until a cell is finished; --measure times a step"
    time_left = unknown if left is None else duration(left)
    if left and per_flop and not any(point.status == "finished" for point in planned.points):
        alone = (planned.seconds_left(1, per_flop) or 0) / 3600
        time_left = f"{time_left}, {alone:,.1f} device-hours by a step timed here, without scoring"
    say(f"cells:  {len(missing)} of {len(planned.points)} to run, in {planned.folder}")
    print(f"time:   {time_left} (with {len(shared)} at a time)")
    if study.command is None:
        print(f"disk:   about {planned.disk_bytes() / 2**20:.0f} MiB")
    for point in missing if study.command is not None else ():
        say(_command_line(point))


def _own_variants(planned: "Plan") -> dict[str, str]:
    """Return what the variants of the study's own are, in words."""
    from sagan_bench.config.meanings import sentence
    from sagan_bench.config.variants import VARIANTS

    names = planned.manifest.study.names
    return {name: sentence(table) for name, table in names.get(VARIANTS, {}).items()}


def _command_line(point: "GridPoint") -> str:
    """Return the command of a run that another program makes, as a shell takes it."""
    from sagan_bench.runs.command import Command

    words = point.config.words(point.path) if isinstance(point.config, Command) else []
    return shlex.join(words)


def _print_table(planned: "Plan") -> None:
    study, differences = planned.manifest.study, planned.differences()
    baselines = dict(study.pairs)
    counts = Counter((point.variant, STATES[point.status]) for point in planned.points)
    to_run = Counter(point.variant for point in planned.missing)
    rows = []
    for variant in study.all_variants:
        states = [str(counts[variant, state] or "") for state in STATES.values()]
        apart = ""
        if variant in baselines:
            apart = f"{baselines[variant]}: {changes(differences[variant])}"
        rows.append([variant, *states, str(to_run[variant]), apart])
    print_table("", ("variant", *STATES.values(), "to run", "against"), rows)


def _print_json(planned: "Plan", jobs: int, per_flop: float | None) -> None:
    study, to_run = planned.manifest.study, {point.id for point in planned.missing}
    plan = {
        "study": study.name,
        "question": study.question,
        "folder": str(planned.folder),
        "cells": [
            {"id": point.id, "state": STATES[point.status], "to_run": point.id in to_run}
            | ({"command": _command_line(point)} if study.command is not None else {})
            for point in planned.points
        ],
        **({"variants": own} if (own := _own_variants(planned)) else {}),
        "differences": planned.differences(),
        "seconds_left": planned.seconds_left(jobs, per_flop),
        "seconds_per_flop": per_flop,
        "disk_bytes": planned.disk_bytes(),
    }
    print(json.dumps(plan, indent=2))


# --- What came of it -----------------------------------------------------------------------------


GO_ON = {
    "interrupted": "what was interrupted goes on with the same command",
    "failed": "what failed is tried again with --retry-failed",
}
"""By the status of a run: how it may yet get a result."""


def _conclude(planned: "Plan", as_json: bool) -> None:
    """Print what can be claimed, and end with 3 if a run has failed, diverged or stopped."""
    from sagan_bench.experiments.findings import of_study
    from sagan_bench.report.findings import findings as in_words
    from sagan_bench.runs.run_directory import tidy

    tidy(planned.folder)
    numbers = of_study(planned.folder)
    findings = in_words(numbers)
    if as_json:
        print(json.dumps(asdict(findings), indent=2))
    else:
        print_findings(findings, numbers)
    bad: list[GridPoint] = [
        point for point in planned.points if point.status in ("failed", "diverged", "interrupted")
    ]
    for point in bad:
        say(f"{point.status}: {point.path}: {point.reason}", error=True)
    for advice in (go_on for status, go_on in GO_ON.items() if status in {c.status for c in bad}):
        say(advice, error=True)
    if not as_json:
        say(f"study:   {planned.folder}")
        say(f"next:    {program()} compare {planned.folder}")
    if bad:
        raise typer.Exit(SOME_FAILED)
