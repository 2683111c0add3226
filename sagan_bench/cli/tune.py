"""The verb ``tune``: search hyperparameters, and say what the winner is worth on fresh seeds."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.console import say, shown
from sagan_bench.cli.options import program
from sagan_bench.cli.signals import exit_stopped, stopping
from sagan_bench.cli.tables import number
from sagan_bench.cli.tuned import print_tuning, verdict
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.experiments.tuning.definition import Memory, Tuning
    from sagan_bench.experiments.tuning.findings import Findings

SOME_FAILED = 3
SECONDS_BETWEEN_LINES = 30.0

app = typer.Typer(
    help="Search hyperparameters of one variant, or of several equally well.",
    invoke_without_command=True,
    epilog="Begin with: python cli.py tune --variant sagan --trials 12",
)

Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs")]
Storage = Annotated[
    str | None, typer.Option(help="URL of a database [default: a journal in the folder]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]


@app.callback()
def tune(
    context: typer.Context,
    variant: Annotated[str, typer.Option(help="What to tune")] = "sagan",
    variants: Annotated[
        str | None, typer.Option(help="Several, tuned equally well: sagan,no-attention")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=1_000_000, help="Of each search, in all")] = 30,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no trial begins")
    ] = None,
    searches: Annotated[
        int, typer.Option(min=1, max=1_000, help="Independent searches a variant")
    ] = 1,
    preset: Annotated[str, typer.Option(help="What every trial begins with")] = "quick",
    space: Annotated[
        str | None, typer.Option(help="A space's name or TOML file [default: the preset's]")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="fid, twin_rate, ...; several: fid,images_per_sec")
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe, random, gp or qmc")] = "tpe",
    pruner: Annotated[
        str | None, typer.Option(help="percentile, median, hyperband or none")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Tune on other images")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Budget of a trial")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    confirm: Annotated[bool, typer.Option(help="Train the best again on fresh seeds")] = True,
    retry_failed: Annotated[bool, typer.Option(help="Make those runs that failed again")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time [default: one a GPU, or a core]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Folder below --runs")] = None,
    runs: Runs = Path("runs"),
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="auto (every GPU), cpu, cuda:N")] = "auto",
    in_process: Annotated[bool, typer.Option(help="Run trials in this process", hidden=True)] = (
        False
    ),
    as_json: Json = False,
) -> None:
    """Search hyperparameters, then train the best again on seeds that were never searched.

    The same command again goes on: --trials is the total.
    """
    if context.invoked_subcommand:
        return
    from sagan_bench.experiments.tuning import planning
    from sagan_bench.experiments.tuning.definition import Memory, folder_of
    from sagan_bench.experiments.tuning.findings import of_tuning
    from sagan_bench.runs.run_directory import tidy

    asked = _asked(
        variants or variant, searches, preset, space, objective, sampler, pruner, data, steps, sets
    )
    folder = folder_of(asked, runs, name)
    is_new = Memory.of(folder) is None
    memory = planning.plan(
        asked, folder, _host(device), trials=trials, storage=storage, confirm=confirm
    )
    if is_new or retry_failed or not planning.is_over(memory, of_tuning(folder, storage)):
        planning.refuse_impossible(memory, folder)
        memory = _run(memory, folder, storage, jobs, device, in_process, timeout, retry_failed)
    found = of_tuning(folder, storage)
    if planning.is_over(memory, found):
        planning.write_best(memory, folder, found)
    tidy(folder)
    print_tuning(found, folder, as_json)
    _exit_if_failed(found, memory.confirm)


def _exit_if_failed(found: "Findings", confirm: bool) -> None:
    """End with 3 if a trial failed or a run on fresh seeds was lost; a diverged trial is data."""
    failed = [
        f"trial {trial.number} of {one.id} failed: {trial.reason}"
        for one in found.searches
        for trial in one.trials
        if trial.outcome == "failed"
    ]
    lost = [
        f"{one.id}: a run of trial {candidate.number} at seed {seed} diverged or failed"
        for one in found.searches
        for candidate in one.candidates
        for seed, value in (candidate.on_a | candidate.on_b).items()
        if value is None
    ]
    without = [
        f"{one.id}: {one.missing} runs on fresh seeds left no record; the same command makes them"
        for one in found.searches
        if confirm and one.missing
    ]
    interrupted = [
        f"trial {trial.number} of {one.id} was interrupted; the same command goes on with it"
        for one in found.searches
        for trial in one.trials
        if trial.outcome == "running"
    ]
    for line in [*failed, *lost, *without, *interrupted]:
        say(line, error=True)
    if lost:
        say("what failed on fresh seeds is tried again with --retry-failed", error=True)
    if failed or lost or without or interrupted:
        raise typer.Exit(SOME_FAILED)


def _asked(
    variants: str,
    searches: int,
    preset: str,
    space: str | None,
    objective: str | None,
    sampler: str,
    pruner: str | None,
    data: str | None,
    steps: int | None,
    sets: list[str] | None,
) -> "Tuning":
    from sagan_bench.config.layers import parse_set
    from sagan_bench.config.variants import pick, presets
    from sagan_bench.core.names import kind_of
    from sagan_bench.experiments.tuning import space as spaces
    from sagan_bench.experiments.tuning.definition import PRUNERS, SAMPLERS, Tuning

    pick("preset", preset, presets())
    settings: dict[str, Any] = dict(map(parse_set, sets or []))
    settings |= {"data.source": data} if data else {}
    searched = spaces.load(space) if space else spaces.space_for(preset)
    if steps:
        budget = searched.budget | {"run.steps": steps}
        searched = searched.model_copy(update={"budget": budget})
    kind = kind_of(str(settings.get("data.source") or presets()[preset]["data.source"]))
    named = searched.measure(kind).metric if objective is None else objective
    objectives = tuple(named.split(","))
    default = "median" if len(objectives) == 1 else "none"
    return Tuning(
        preset=preset,
        variants=tuple(variants.split(",")),
        searches=searches,
        space=searched,
        objectives=objectives,
        sampler=_one_of("--sampler", sampler, SAMPLERS),
        pruner=_one_of("--pruner", pruner or default, PRUNERS),
        settings=settings,
    )


def _one_of(option: str, given: str, known: tuple[Any, ...]) -> Any:
    from sagan_bench.core.names import closest

    if given not in known:
        raise UserError(f"{option} {given}: {closest(given, known)}")
    return given


def _host(device: str) -> Callable[[Any], Any]:
    def ask(config: Any) -> Any:
        from sagan_bench.config.layers import override
        from sagan_bench.session.capabilities import capabilities

        return capabilities(override(config, {"run.device": ("--device", device)}))

    return ask


def _run(
    memory: "Memory",
    folder: Path,
    storage: str | None,
    jobs: int | None,
    device: str,
    in_process: bool,
    timeout: float | None,
    retry: bool,
) -> "Memory":
    from sagan_bench.cli.bars import Bars
    from sagan_bench.execution.engine import Engine, Inline, Processes, slots
    from sagan_bench.experiments.driver import held
    from sagan_bench.experiments.tuning import planning
    from sagan_bench.session.events import Stopped

    with stopping() as stop, held(folder):
        with Bars() as bars:

            def progress(done: int, total: int) -> None:
                bars.advance("images", done, total)
                if reason := stop():
                    raise Stopped(reason, None)

            try:
                memory = planning.with_data(memory, folder, progress)
            except Stopped as stopped:
                exit_stopped(str(stopped))
        tuning = memory.tuning
        total = memory.trials * tuning.searches * len(tuning.variants)
        shared = slots(jobs, device, total)
        print(
            f"{folder}: {total} trials of {tuning.steps} steps in all, {len(shared)} at a time",
            file=sys.stderr,
        )
        engine: Engine = Inline(shared[0], stop) if in_process else Processes(shared)
        try:
            planning.run(
                memory,
                folder,
                engine,
                Lines(tuning.objectives[0]),
                stop,
                storage=storage,
                timeout_sec=timeout,
                retry=retry,
            )
        except Stopped as stopped:
            exit_stopped(str(stopped), stopped.path)
        finally:
            engine.close()
    return memory


class Lines:
    """How the searches go, on stderr: a line for each run that ends, and now and then the rest."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self.under_way: dict[str, str] = {}
        self.final: dict[str, str] = {}
        self.last_line = time.monotonic()

    def __call__(self, searcher: Any, cell: Any, what: Any) -> None:
        """Take notice of what happened in a run; None: it begins."""
        from sagan_bench.execution.engine import Ended
        from sagan_bench.session.events import Scored
        from sagan_bench.training.loop import Step

        if isinstance(what, Step):
            self.under_way[cell.id] = f"{what.step / cell.config.run.steps:.0%}"
        elif isinstance(what, Scored) and what.score.final and what.score.weights == "ema":
            if self.objective in what.score.metrics:
                self.final[cell.id] = number(what.score.metrics[self.objective])
        elif isinstance(what, Ended):
            self.under_way.pop(cell.id, None)
            self._ended(searcher, cell, what)
        now = time.monotonic()
        if self.under_way and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            texts = ", ".join(f"{name} {text}" for name, text in self.under_way.items())
            print(f"under way: {texts}", file=sys.stderr, flush=True)

    def _ended(self, searcher: Any, cell: Any, what: Any) -> None:
        value = self.final.get(cell.id, "—")
        ended = f"{self.objective} {value}" if what.status == "finished" else what.reason
        of_trial = cell.seed == searcher.search.seeds.search
        part = f"{cell.number + 1}/{searcher.total}" if of_trial else "fresh seed"
        print(shown(f"{cell.id} ({part}): {ended}"), file=sys.stderr, flush=True)


# --- What is found -----------------------------------------------------------------------------


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The tuning's folder, or its name")],
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
    name: Annotated[str, typer.Argument(help="The tuning's folder, or its name")],
    variant: Annotated[str | None, typer.Option(help="Of several")] = None,
    as_config: Annotated[
        bool, typer.Option("--as-config", help="Print a file for train --config")
    ] = False,
    runs: Runs = Path("runs"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the winner: what it is worth on fresh seeds, and its values."""
    from sagan_bench.experiments.tuning.definition import Memory
    from sagan_bench.experiments.tuning.findings import of_tuning
    from sagan_bench.experiments.tuning.planning import best as best_of

    folder = find_tuning(name, runs)
    memory, found = Memory.of(folder), of_tuning(folder, storage)
    of = _one_of("--variant", variant or found.variants[0], found.variants)
    text = best_of(memory, found, of) if memory else None
    if text is None:
        raise UserError(f"{folder}: no winner of {of} is confirmed yet; run the tuning on")
    if as_config:
        print(shown(text, lines=True), end="")
        return
    one = found.first(of)
    if as_json:
        print(json.dumps(asdict(one.winner) | {"reported": one.reported}, indent=2))  # type: ignore[arg-type]
        return
    say(verdict(found, one))
    say(f"next: {program()} train --from-study {folder.name}")


def find_tuning(name: str, runs: Path) -> Path:
    """Return the folder of a tuning given by path or name.  Raises `UserError` with the closest."""
    from sagan_bench.core.names import closest
    from sagan_bench.experiments.tuning.definition import MEMORY

    for path in (Path(name), runs / name):
        if (path / MEMORY).exists():
            return path
    names = [file.parent.name for file in sorted(runs.glob(f"*/{MEMORY}"))]
    hint = closest(name, names) if names else f"there are none; begin with: {program()} tune"
    raise UserError(f"no tuning is at {name}, nor in {runs}; {hint}")


def best_file(name: str, variant: str | None, runs: Path) -> Path:
    """Return the file of a tuning's winner, for ``train``.  Raises `UserError` if there is none."""
    from sagan_bench.experiments.tuning.definition import Memory
    from sagan_bench.experiments.tuning.planning import best_name

    folder = find_tuning(name, runs)
    memory = Memory.of(folder)
    variants = memory.tuning.variants if memory else ()
    of = _one_of("--variant", variant or variants[0], variants)
    file = folder / best_name(of)
    if not file.exists():
        raise UserError(f"--from-study {name}: no winner of {of} is confirmed yet; run it on")
    return file
