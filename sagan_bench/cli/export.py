"""The verb ``export``: a finished run's generator for use outside this project."""

from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli.options import RunName, Runs, Weights
from sagan_bench.cli.places import find_run


def export(
    run: RunName,
    weights: Weights = "ema",
    out: Annotated[Path | None, typer.Option(help="Folder \\[default: export/ in the run]")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a finished run's generator as a program and as weights that load without this one."""
    from sagan_bench.session import exporting

    files = exporting.export(find_run(run, runs), weights, out)
    print(files.program, files.weights, sep="\n")
    print(f"\nit loads where torch is:\n\n{files.lines}")
