"""The verb ``export``: a finished run's generator for use outside this project."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(help="A run's folder, or its name")],
    weights: Annotated[str, typer.Option(help="ema or raw")] = "ema",
    out: Annotated[Path | None, typer.Option(help="Folder [default: export/ in the run]")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs")] = Path("runs"),
) -> None:
    """Write a finished run's generator as a program and as weights that load without this one."""
    from sagan_bench.cli import find_run
    from sagan_bench.session import exporting

    files = exporting.export(find_run(run, runs), weights, out)
    print(files.program, files.weights, sep="\n")
    print(f"\nit loads where torch is:\n\n{files.lines}")
