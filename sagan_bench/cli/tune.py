"""The verb ``tune``: search hyperparameters, and say what the winner is worth on fresh seeds."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say, shown
from sagan_bench.cli.options import (
    Json,
    PresetFile,
    RetryFailed,
    Runs,
    Sets,
    Storage,
    With,
    command,
    either,
    load_own,
    load_presets,
    pick,
    refuse_wrong,
    seed,
)
from sagan_bench.cli.places import find_tuning
from sagan_bench.cli.placing import Wanted, with_place
from sagan_bench.cli.running import Where, carry_out, stop_runs
from sagan_bench.cli.tuned import exit_if_failed, print_tuning, verdict
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SAMPLERS

if TYPE_CHECKING:
    from sagan_bench.config.variants import Meant
    from sagan_bench.core.extensions import Extension
    from sagan_bench.execution.engine import Engine as AnyEngine
    from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest
    from sagan_bench.session.events import Stop

app = typer.Typer(
    help="Search hyperparameters of one variant, or of several equally well.",
    invoke_without_command=True,
    epilog="Begin with: python cli.py tune --variant sagan --trials 12",
)

Variants = Annotated[
    str | None, typer.Option(help="Several, tuned equally well: sagan,no-attention")
]
Trials = Annotated[int, typer.Option(min=1, max=1_000_000, help="Of each search, in all")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds after which no trial begins")]
Searches = Annotated[
    int,
    typer.Option(min=1, max=1_000, help="Independent ones a variant at most; from 5 with verdicts"),
]
NoFutility = Annotated[
    bool, typer.Option("--no-futility", help="Search on where there is little hope of a verdict")
]
FirstSeed = Annotated[
    Any,
    seed(
        "--first-seed",
        "Of training, the others follow: none that a study is to use",
        for_several="give the first; the others follow it",
    ),
]
Space = Annotated[
    str | None,
    typer.Option(
        help="A space's name or TOML file \\[default: the preset's]",
        autocompletion=completing.space,
    ),
]
Objective = Annotated[
    str | None, typer.Option(help="fid, twin_rate, ...; several: fid,images_per_sec")
]
Pruner = Annotated[str | None, typer.Option(help="percentile, median, hyperband or none")]
Steps = Annotated[int | None, typer.Option(min=1, help="Budget of a trial")]
Confirm = Annotated[bool, typer.Option(help="Train the best again on fresh seeds")]
TRIALS_AHEAD = 4
"""Trials at a time on a cluster: each is chosen by the scores of those before."""
TuningName = Annotated[
    str,
    typer.Argument(help="The tuning's folder, or its name", autocompletion=completing.tuning),
]


@app.callback()
@with_place()
def tune(
    context: typer.Context,
    variant: Annotated[str, typer.Option(help="What to tune")] = "sagan",
    variants: Variants = None,
    trials: Trials = 30,
    timeout: Timeout = None,
    searches: Searches = 1,
    no_futility: NoFutility = False,
    first_seed: FirstSeed = 0,
    preset: Annotated[
        str | None, typer.Option(help="What every trial begins with \\[default: twins32]")
    ] = None,
    preset_file: PresetFile = None,
    space: Space = None,
    objective: Objective = None,
    sampler: Annotated[str, typer.Option(help=either(SAMPLERS))] = "tpe",
    pruner: Pruner = None,
    data: Annotated[str | None, typer.Option(help="Tune on other images")] = None,
    steps: Steps = None,
    sets: Sets = None,
    with_: With = None,
    confirm: Confirm = True,
    retry_failed: RetryFailed = False,
    name: Annotated[str | None, typer.Option(help="Folder below --runs")] = None,
    runs: Runs = Path("runs"),
    storage: Storage = None,
    *,
    wanted: Wanted,
    as_json: Json = False,
) -> None:
    """Search hyperparameters, then train the best again on seeds that were never searched.

    The same command again goes on: --trials is the total.
    """
    if context.invoked_subcommand:
        return
    from sagan_bench.core import extensions
    from sagan_bench.experiments.tuning import definition, planning

    files = load_own(with_)
    names = (variants or variant).split(",")
    settings = _settings(files, data, sets or [])
    tuning = _requested(
        names, searches, no_futility, first_seed, preset, load_presets(preset_file), space,
        objective, sampler, pruner, steps, settings,
    )  # fmt: skip
    tuning = tuning.with_own(tuning.requested(variant, 0).config for variant in names)
    refuse_wrong([*files, *extensions.require(tuning.own)])
    where = Where.of(wanted)
    folder = definition.folder_of(tuning, runs, name)
    if wanted.stop:
        stop_runs(folder)
        return
    host = partial(where.host, folder=folder)
    manifest = planning.plan(tuning, folder, host, trials=trials, storage=storage, confirm=confirm)
    manifest = _run(manifest, folder, where, storage, timeout, retry_failed)
    _conclude(manifest, folder, storage, as_json)


def _settings(files: "list[Extension]", data: str | None, sets: list[str]) -> dict[str, Any]:
    """Return what files of components have, and over it what is typed."""
    from sagan_bench.config.layers import parse_set
    from sagan_bench.config.used import used

    typed = dict(map(parse_set, sets)) | ({"data.source": data} if data else {})
    return used({file.name: file.described for file in files}) | typed


def _requested(
    variants: list[str],
    searches: int,
    no_futility: bool,
    first_seed: int,
    preset: str | None,
    names: "Meant",
    space: str | None,
    objective: str | None,
    sampler: str,
    pruner: str | None,
    steps: int | None,
    settings: dict[str, Any],
) -> "Tuning":
    from sagan_bench.config.meanings import chosen_preset, only_preset, source_of
    from sagan_bench.config.variants import pick as pick_preset
    from sagan_bench.config.variants import presets
    from sagan_bench.core.names import kind_of
    from sagan_bench.experiments.tuning import space as spaces
    from sagan_bench.experiments.tuning.definition import PRUNERS, Tuning

    preset = chosen_preset(names, preset)
    pick_preset("preset", preset, presets(names))
    searched = spaces.load(space) if space else spaces.space_for(preset)
    if steps:
        budget = searched.budget | {"run.steps": steps}
        searched = searched.model_copy(update={"budget": budget})
    kind = kind_of(str(settings.get("data.source") or source_of(preset, names)))
    named = searched.measure(kind).metric if objective is None else objective
    objectives = tuple(named.split(","))
    default = "median" if len(objectives) == 1 else "none"
    return Tuning(
        preset=preset,
        presets=only_preset(names, preset),
        variants=tuple(variants),
        searches=searches,
        to_the_end=no_futility,
        first_seed=first_seed,
        space=searched,
        objectives=objectives,
        sampler=pick("--sampler", sampler, list(SAMPLERS)),
        pruner=pick("--pruner", pruner or default, PRUNERS),
        settings=settings,
    )


def _run(
    manifest: "TuningManifest",
    folder: Path,
    where: Where,
    storage: str | None,
    timeout: float | None,
    retry: bool,
) -> "TuningManifest":
    """Run what is not over, and return what the folder keeps."""
    from sagan_bench.cli.progress import TrialsView
    from sagan_bench.experiments.tuning import planning
    from sagan_bench.experiments.tuning.findings import of_tuning

    is_begun = manifest.of(folder) is not None
    if is_begun and not retry and planning.is_over(manifest, of_tuning(folder, storage)):
        return manifest
    planning.refuse_impossible(manifest, folder)
    tuning = manifest.tuning
    where.say_of_emulated(tuning.requested(variant, 0).config for variant in tuning.variants)
    total = manifest.trials * tuning.searches * len(tuning.variants)
    at_most = "up to " if tuning.design.looks[:-1] else ""

    def run(ready: "TuningManifest", engine: "AnyEngine", stop: "Stop", jobs: int | None) -> None:
        trials = f"{at_most}{total} trials of {tuning.steps} steps in all"
        text = f"{folder}: {trials}, {jobs or TRIALS_AHEAD} at a time"
        print(text, file=sys.stderr)
        config = tuning.config(tuning.variants[0], 0, ready.auto)
        view = TrialsView(tuning.objectives[0], config.evaluation.extractor, manifest.trials)
        planning.run(
            ready,
            folder,
            engine,
            view.follow,
            stop,
            storage=storage,
            timeout_sec=timeout,
            retry=retry,
        )

    _get_ready(manifest, folder, where)
    prepared, ahead = partial(planning.with_data, manifest, folder), where.jobs or TRIALS_AHEAD
    return carry_out(folder, where, total, prepared, run, ahead=ahead)


def _get_ready(manifest: "TuningManifest", folder: Path, where: Where) -> None:
    """Do what comes before runs are handed to a cluster, if they are.  Raises `UserError`."""
    if where.profile.settings is None:
        return
    from sagan_bench.execution.losses import record_of  # torch
    from sagan_bench.runs.finding import find_runs

    where.refuse_slow(map(record_of, find_runs(folder)))
    tuning = manifest.tuning
    where.prepare(tuning.config(tuning.variants[0], 0, manifest.auto), folder)


def _conclude(manifest: "TuningManifest", folder: Path, storage: str | None, as_json: bool) -> None:
    from sagan_bench.experiments.tuning import planning, winners
    from sagan_bench.experiments.tuning.findings import of_tuning
    from sagan_bench.runs.keeping import tidy

    findings = of_tuning(folder, storage)
    if planning.is_over(manifest, findings):
        winners.write_best(manifest, folder, findings)
    tidy(folder)
    print_tuning(findings, folder, as_json)
    exit_if_failed(findings, manifest.confirm)


# --- What is found -----------------------------------------------------------------------------


@app.command()
def show(
    name: TuningName,
    runs: Runs = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show what a tuning found: history, budget, importance, the best on fresh seeds."""
    from sagan_bench.experiments.tuning.findings import of_tuning

    folder = find_tuning(name, runs)
    print_tuning(of_tuning(folder, storage), folder, as_json)


@app.command()
def best(
    name: TuningName,
    variant: Annotated[str | None, typer.Option(help="Of several")] = None,
    as_config: Annotated[
        bool, typer.Option("--as-config", help="Print a file for train --config")
    ] = False,
    runs: Runs = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the winner: what it is worth on fresh seeds, and its values."""
    from sagan_bench.experiments.tuning.definition import TuningManifest
    from sagan_bench.experiments.tuning.findings import of_tuning
    from sagan_bench.experiments.tuning.winners import best as best_of

    folder = find_tuning(name, runs)
    manifest, findings = TuningManifest.of(folder), of_tuning(folder, storage)
    chosen = pick("--variant", variant or findings.variants[0], findings.variants)
    text = best_of(manifest, findings, chosen) if manifest else None
    search = findings.first(chosen)
    if text is None or search.winner is None:
        raise UserError(f"{folder}: no winner of {chosen} is confirmed yet; run the tuning on")
    if as_config:
        print(shown(text, lines=True), end="")
    elif as_json:
        worth = {"reported": search.reported, "untuned": search.untuned}
        print(json.dumps(asdict(search.winner) | worth, indent=2))
    else:
        say(verdict(findings, search))
        say(f"next: {command('train', '--from-study', folder.name)}")
