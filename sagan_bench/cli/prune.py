"""The verb ``prune``: free what finished runs keep to be trained further."""

from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say
from sagan_bench.cli.options import Runs
from sagan_bench.cli.places import find_run
from sagan_bench.core.errors import UserError


def prune(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|STUDY...",
            help="Runs, studies, or folders of runs",
            autocompletion=completing.place,
        ),
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Remove the training state that finished runs keep; records, weights and pictures stay.

    They can then no longer be trained further, nor be what another run begins with.
    """
    from sagan_bench.cli.record import mib

    chosen = [run for place in places for run in _runs_at(place, runs)]
    freed = sum(_pruned(*run) for run in chosen)
    if not freed:
        say("nothing is kept there")
        return
    say(
        f"freed:   {mib(freed)}; what was pruned cannot be trained further (--steps), nor be begun "
        "with (--init-from), and probe leaves its discriminator out"
    )


def _runs_at(place: str, runs: Path) -> list[tuple[Path, bool]]:
    """Return the run, or the runs of a study or folder, and whether it was named itself.

    Raises:
        UserError: there is none, with the closest name.
    """
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.records import RECORD

    for folder in (Path(place), runs / place):
        if folder.is_dir() and not (folder / RECORD).exists() and (below := find_runs(folder)):
            return [(path, False) for path in below]
    return [(find_run(place, runs), True)]


def _pruned(path: Path, is_named: bool) -> int:
    """Prune a run, say so, and return how much that freed; of a study what cannot be is left."""
    from sagan_bench.cli.record import mib
    from sagan_bench.runs.keeping import prune

    try:
        size = prune(path)
    except UserError as error:
        if is_named:
            raise
        say(f"left:    {error}", error=True)
        return 0
    if size:
        say(f"pruned:  {path}, {mib(size)}")
    return size
