"""The verb ``ablate``: run a study's missing runs, and say what can be claimed."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.compare import print_findings
from sagan_bench.cli.console import say
from sagan_bench.cli.options import (
    Json,
    PresetFile,
    RetryFailed,
    Runs,
    Sets,
    With,
    command,
    load_own,
    load_presets,
    refuse_wrong,
    several_seeds,
)
from sagan_bench.cli.placing import Wanted, with_place
from sagan_bench.cli.plan import print_plan
from sagan_bench.cli.running import Where, carry_out, stop_runs
from sagan_bench.cli.signals import SOME_FAILED
from sagan_bench.cli.tables import changes, duration
from sagan_bench.core.errors import NothingFinished, UserError

if TYPE_CHECKING:
    from sagan_bench.execution.engine import Engine as AnyEngine
    from sagan_bench.experiments.grid import GridPoint, Plan
    from sagan_bench.experiments.study import Study
    from sagan_bench.session.events import Stop


StudyName = Annotated[
    str | None,
    typer.Argument(
        help="A study's name or TOML file; see: list studies \\[default: twins32]",
        autocompletion=completing.study,
    ),
]
Seeds = Annotated[
    Any | None, several_seeds("--seeds", "Training seeds to run, e.g. 0-4 or 0,2,7-9")
]
Measure = Annotated[
    bool, typer.Option("--measure", help="With --dry-run: time a step here, data or not")
]
Folder = Annotated[
    str | None, typer.Option("--name", help="Folder below --runs \\[default: the study's]")
]
UntilConclusive = Annotated[
    bool,
    typer.Option("--until-conclusive", help="Add seeds until each pair has its answer"),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(min=5, max=1_000, help="Until conclusive, seeds at most \\[default: 20]"),
]
NoFutility = Annotated[
    bool, typer.Option("--no-futility", help="Until conclusive, go on where there is little hope")
]
Spread = Annotated[
    float | None,
    typer.Option(help="With --dry-run: sd of runs, to foresee what can be seen"),
]
CommandLine = Annotated[
    str | None,
    typer.Option("--command", help="Makes a cell, with {seed}, {out}, {variant} and the study's"),
]


@with_place()
def ablate(
    study: StudyName = None,
    data: Annotated[str | None, typer.Option(help="Put the question to other images")] = None,
    seeds: Seeds = None,
    only: Annotated[str | None, typer.Option(help="Variants to run, e.g. sagan,wider")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Generator updates of each cell")] = None,
    preset: Annotated[str | None, typer.Option(help="Begin with this preset instead")] = None,
    preset_file: PresetFile = None,
    sets: Sets = None,
    with_: With = None,
    name: Folder = None,
    command: CommandLine = None,
    until_conclusive: UntilConclusive = False,
    max_seeds: MaxSeeds = None,
    no_futility: NoFutility = False,
    runs: Runs = Path("runs"),
    *,
    wanted: Wanted,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing")] = False,
    measure: Measure = False,
    spread: Spread = None,
    as_json: Json = False,
) -> None:
    """Run a study: every variant at every seed, and what the comparison says.

    The same command again runs only what is missing.
    """
    from sagan_bench.experiments import ablation

    if (measure or spread is not None) and not dry_run:
        raise UserError("--measure and --spread say what to expect of a study; add --dry-run")
    where = Where.of(wanted)
    load_own(with_)  # which a preset may name
    fields = {"preset": preset, "command": command, "names": load_presets(preset_file) or None}
    fields |= _grows(until_conclusive, max_seeds, no_futility)
    requested = _requested(study, data, steps, sets or [], with_, **fields)
    folder = ablation.folder_of(requested, runs, name)
    if wanted.stop:
        stop_runs(folder)
        return
    planned = ablation.plan(
        requested, folder, partial(where.host, folder=folder, dry_run=dry_run),
        seeds=seeds or (), retry=retry_failed,
        only=tuple(only.split(",")) if only is not None else (), without_data=dry_run and measure,
    )  # fmt: skip
    if planned.missing and requested.command is None:
        where.refuse_slow(point.record for point in planned.points)
        where.say_of_emulated(point.ours for point in planned.missing)
    if dry_run:
        print_plan(planned, where, measure=measure, spread=spread, as_json=as_json)
    else:
        _conclude(_run(planned, where) if planned.missing else planned, as_json)


def _grows(until_conclusive: bool, max_seeds: int | None, no_futility: bool) -> dict[str, Any]:
    """Return what the options say of how a study grows; empty if they say nothing."""
    said: dict[str, Any] = {} if max_seeds is None else {"max_seeds": max_seeds}
    said |= {"futility": False} if no_futility else {}
    return {"until_conclusive": said} if until_conclusive or said else {}


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
    from sagan_bench.experiments.studies import (
        DEFAULT_STUDY,
        components_in,
        files_of,
        load,
        of_files,
    )

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
    requested = load(study or DEFAULT_STUDY, set=settings, own=own, **given)
    theirs = requested.all_variants
    blocks = components_in({stem: own[stem] for stem in joining}, "ATTENTION")
    more = (block for block in blocks if block not in theirs)
    return requested.model_copy(update={"variants": (*requested.variants, *more)})


def _run(planned: "Plan", where: Where) -> "Plan":
    """Run what is missing, and return the plan as it then stands."""
    from sagan_bench.cli.grid import GridView
    from sagan_bench.core import extensions
    from sagan_bench.experiments import ablation

    refuse_wrong(extensions.require(planned.manifest.study.own, planned.folder))

    def run(ready: "Plan", engine: "AnyEngine", stop: "Stop", jobs: int | None) -> None:
        _announce(ready, jobs)
        with GridView(ready) as view:
            ablation.run(ready, engine, view.follow, stop)

    _warn_of_threads(planned, where)
    if planned.manifest.study.command is None:
        where.prepare(planned.points[0].ours, planned.folder)
    prepared = partial(ablation.with_data, planned)
    runs, ahead = len(planned.points), len(planned.missing)
    return carry_out(planned.folder, where, runs, prepared, run, ahead=ahead).refreshed()


def _warn_of_threads(planned: "Plan", where: Where) -> None:
    """Say where a cluster's runs would have other CPU threads than those before: other last bits.

    A run that is gone on with keeps its own, and one whose settings name a number has that.
    """
    settings = where.profile.settings
    missing = {point.id for point in planned.missing}
    before = {
        attempt.threads
        for point in planned.points if point.record and point.id not in missing
        for attempt in point.record.attempts[-1:] if attempt.threads
    }  # fmt: skip
    if settings and before - {settings.threads}:
        say(
            f"runs of {planned.folder} have had {', '.join(map(str, sorted(before)))} CPU threads, "
            f"and --engine gives {settings.threads}: their last bits differ; set cpus-per-task, "
            "or cpus_per_cell",
            error=True,
        )


def _announce(planned: "Plan", jobs: int | None) -> None:
    study = planned.manifest.study
    say(f"{study.name}: {study.question}", error=True)
    baselines = dict(study.pairs)
    for variant, differs in planned.differences().items():
        say(f"  {variant} against {baselines[variant]}: {changes(differs)}", error=True)
    left = planned.seconds_left(jobs) if jobs else None
    about = f", about {duration(left)}" if left else ""
    cells = f"{len(planned.missing)} of {len(planned.points)} cells to run"
    if study.design and not planned.by_seed:
        cells = f"{len(planned.missing)} cells to run for the next look"
        cells += f", up to {len(planned.possible)} in all"
    room = f"{jobs} at a time" if jobs else "as many at a time as there is room"
    print(f"{cells}, {room}{about}", file=sys.stderr)


# --- What came of it -----------------------------------------------------------------------------


NOT_BEGUN = "not begun"
"""What a cell is called that left a queue before it began."""
GO_ON = {
    NOT_BEGUN: "what was not begun is with the same command",
    "interrupted": "what was interrupted goes on with the same command",
    "failed": "what failed is tried again with --retry-failed",
}
"""By the status of a run: how it may yet get a result."""


def _conclude(planned: "Plan", as_json: bool) -> None:
    """Print what can be claimed, and end with 3 if a run has failed, diverged or stopped."""
    from sagan_bench.runs.keeping import tidy

    tidy(planned.folder)
    bad = _bad(planned)
    try:
        _claim(planned.folder, as_json)
    except NothingFinished as error:
        if not bad:
            raise
        say(str(error), error=True)
    _advise(bad)
    if not as_json:
        say(f"study:   {planned.folder}")
        say(f"next:    {command('compare', planned.folder)}")
    if bad:
        raise typer.Exit(SOME_FAILED)


def _claim(folder: Path, as_json: bool) -> None:
    """Print what can be claimed.  Raises `NothingFinished`."""
    from sagan_bench.experiments.findings import of_study
    from sagan_bench.report.findings import findings as in_words

    numbers = of_study(folder)
    findings = in_words(numbers)
    if as_json:
        print(json.dumps(asdict(findings), indent=2))
    else:
        print_findings(findings, numbers)


def _bad(planned: "Plan") -> "list[GridPoint]":
    """Return the runs that have no figure although they were needed."""
    needed = {point.id for point in planned.missing}  # of what is not, none goes on
    return [
        point
        for point in planned.points
        if point.status in ("failed", "diverged")
        or (point.status in ("interrupted", None) and point.id in needed)
    ]


def _advise(bad: "list[GridPoint]") -> None:
    """Say of runs that have no figure why, and how they may yet get it."""
    from sagan_bench.runs.log import LOG

    for point in bad:
        why = f": {point.reason}" if point.reason else ""
        say(f"{point.status or NOT_BEGUN}: {point.path}{why}", error=True)
    if printed := next(
        (p.path for p in bad if p.status == "failed" and (p.path / LOG).exists()), None
    ):
        say(f"what it printed: {command('show', printed, '--log')}", error=True)
    states = {point.status or NOT_BEGUN for point in bad}
    for advice in (go_on for status, go_on in GO_ON.items() if status in states):
        say(advice, error=True)
