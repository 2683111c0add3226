"""Runs and tunings by the names that users give them."""

from collections.abc import Sequence
from pathlib import Path

from sagan_bench.cli.options import command, pick
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest

MOST_RUNS = 10
"""Runs that are named where none is called so."""


def refuse_file(out: Path | None) -> None:
    """Refuse a file where a folder is to be made, or one above it.  Raises `UserError`."""
    above = (out, *out.parents) if out is not None else ()
    if (there := next((place for place in above if place.exists()), None)) and not there.is_dir():
        where = f"--out {out}" if there == out else f"--out {out}: {there}"
        raise UserError(f"{where} is a file; name a folder")


def find_run(run: str, runs: Path, *, or_what: Sequence[str] = ()) -> Path:
    """Return the folder of a run given by path, name, or the beginning of only one name.

    Args:
        run: what the user gave.
        runs: folder of runs.
        or_what: names of studies and tunings there, where those would do too.

    Raises:
        UserError: there is none, or more than one; with the closest name.
    """
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.records import RECORD

    for path in (Path(run), runs / run):
        if (path / RECORD).exists():
            return path
    paths = find_runs(runs)
    begun = [path for path in paths if path.name.startswith(run)]
    if len(begun) == 1:
        return begun[0]
    names = [*or_what, *(path.name for path in begun or paths)]
    hint = closest(run, names, most=MOST_RUNS) if names else f"there are no runs in {runs}"
    what = "study, tuning or run" if or_what else "run"
    raise UserError(f"no {what} is at {run}, nor in {runs}; {hint}")


def experiments(runs: Path) -> list[str]:
    """Return the names of the studies and tunings in a folder of runs."""
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition

    memories = (study.MEMORY, definition.MEMORY)
    return sorted(file.parent.name for name in memories for file in runs.glob(f"*/{name}"))


def find_tuning(name: str, runs: Path) -> Path:
    """Return the folder of a tuning given by path or name.  Raises `UserError` with the closest."""
    from sagan_bench.experiments.tuning.definition import MEMORY

    for path in (Path(name), runs / name):
        if (path / MEMORY).exists():
            return path
    names = [file.parent.name for file in sorted(runs.glob(f"*/{MEMORY}"))]
    hint = (
        closest(name, names, most=MOST_RUNS)
        if names
        else f"there are none; begin with: {command('tune')}"
    )
    raise UserError(f"no tuning is at {name}, nor in {runs}; {hint}")


def best_file(name: str, variant: str | None, runs: Path) -> Path:
    """Return the file of a tuning's winner, for ``train``.  Raises `UserError` if there is none."""
    from sagan_bench.experiments.tuning.definition import TuningManifest
    from sagan_bench.experiments.tuning.winners import best_name

    folder = find_tuning(name, runs)
    manifest = TuningManifest.of(folder)
    variants = manifest.tuning.variants if manifest else ()
    chosen = pick("--variant", variant or variants[0], variants)
    file = folder / best_name(chosen)
    if not file.exists():
        raise UserError(f"--from-study {name}: no winner of {chosen} is confirmed yet; run it on")
    return file
