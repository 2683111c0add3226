"""The verb ``sample``: pictures from a finished run's generator."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli.options import Device, RunName, Runs, Weights, whole
from sagan_bench.cli.places import find_run
from sagan_bench.core.errors import UserError

Seed = Annotated[
    int,
    typer.Option(
        parser=partial(whole, "--seed", several="call it again for each"),
        metavar="INTEGER",
        help="Of the noise",
    ),
]


def sample(
    run: RunName,
    n: Annotated[int, typer.Option(min=1, help="Images; with --interpolate, rows of eight")] = 64,
    interpolate: Annotated[
        bool, typer.Option(help="Each row goes from one noise (and class) to another")
    ] = False,
    classes: Annotated[
        str | None, typer.Option(help="Numbers or names of classes: 0,3 or disc,star")
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(min=0.01, help="Noise from |z| < this \\[default: the run's]"),
    ] = None,
    seed: Seed = 0,
    weights: Weights = "ema",
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="PNG file \\[default: in the run]")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Draw images from a finished run, laid out by class, or interpolations, into one PNG."""
    from sagan_bench.session import sampling

    if out and (out.suffix != ".png" or out.parent.is_file()):
        raise UserError(f"--out {out}: expected a PNG file, such as FOLDER/drawn.png")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected a number from 0")
    path = find_run(run, runs)
    exported = sampling.load(path, weights, device)
    chosen = () if classes is None else exported.classes_called(classes.split(","))
    cut = truncation if truncation is not None else exported.truncation
    if interpolate:
        images = exported.interpolations(n, seed, chosen, cut)
    else:
        images = exported.images(n, seed, chosen, cut)
    file = out or path / "samples" / f"{'interpolation' if interpolate else 'drawn'}-s{seed}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    sampling.save_grid(file, images)
    print(file)
