"""The verb ``score``: generated pictures against real ones, both in folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Device, Json, either
from sagan_bench.cli.signals import stopping
from sagan_bench.core.registry import EXTRACTORS

if TYPE_CHECKING:
    from sagan_bench.runs.records import Score


def score(
    fake: Annotated[Path, typer.Option(help="Folder of generated pictures")],
    real: Annotated[Path, typer.Option(help="Folder of real pictures")],
    size: Annotated[
        int | None,
        typer.Option(min=8, max=4096, help="Side in pixels \\[default: their own]"),
    ] = None,
    n_fake: Annotated[
        int | None, typer.Option(min=1, help="Generated pictures to use \\[default: all]")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="e.g. fid,kid_mean \\[default: those of every score]")
    ] = "",
    extractor: Annotated[str, typer.Option(help=either(("auto", *EXTRACTORS)))] = "auto",
    inception_weights: Annotated[str | None, typer.Option(help="Inception's weights")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a folder of pictures against a folder of real ones, under a protocol that is told.

    Pictures of any layout below the folders; figures compare where fingerprints are equal.
    """
    from sagan_bench.cli.progress import View
    from sagan_bench.evaluation.pictures import Folders, score_folders

    names = tuple(filter(None, (name.strip() for name in metrics.split(","))))
    folders = Folders(fake, real, size, n_fake, names, extractor, inception_weights, device)
    with stopping() as stop, View() as view:
        made = score_folders(folders, view.counter("pictures", stop))
    if as_json:
        print(made.model_dump_json(indent=2))
    else:
        _print(made)


def _print(made: "Score") -> None:
    from sagan_bench.cli.tables import number, print_table
    from sagan_bench.evaluation.protocol import label_in

    protocol = made.protocol
    header = (f"{made.n_fake} generated v {protocol['n_real']} real pictures", "value")
    rows = [(label_in(key, protocol), number(value)) for key, value in made.metrics.items()]
    print_table("", header, rows)
    for warning in made.warnings:
        say(f"note: {warning}")
    say(f"protocol {made.fingerprint}, features of {protocol['extractor']}; --json has all of it")
