"""The verb ``sample``: pictures from a finished run's generator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Device, RunName, Runs, Weights
from sagan_bench.cli.options import seed as option_of_seed
from sagan_bench.cli.places import find_run, refuse_file
from sagan_bench.cli.signals import stopping
from sagan_bench.config.seeds import AGAIN
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest

if TYPE_CHECKING:
    from sagan_bench.session.sample_sets import Asked
    from sagan_bench.session.sampling import TrainedGenerator

MOST_ON_A_PICTURE = 10_000
"""Images of one PNG file."""
Seed = Annotated[Any, option_of_seed("--seed", "Of the noise", for_several=AGAIN)]


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
    form: Annotated[
        str | None,
        typer.Option("--as", help="png, npz or tar: single images, as scored, to --out"),
    ] = None,
    scale: Annotated[int, typer.Option(min=1, help="Side of the square that a pixel becomes")] = 1,
    out: Annotated[Path | None, typer.Option(help="PNG file \\[default: in the run]")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Draw images from a finished run: one PNG of all, laid out by class, or files of each.

    With --as the images are those that scores of this seed are of; the same command goes on.
    """
    from sagan_bench.session import sampling
    from sagan_bench.session.probes import GRID_ROW
    from sagan_bench.session.sample_sets import Asked

    if form is None and out and (out.suffix != ".png" or out.parent.is_file()):
        raise UserError(f"--out {out}: expected a PNG file, such as FOLDER/drawn.png")
    if form is not None:
        refuse_file(out)
    elif n * (GRID_ROW if interpolate else 1) > MOST_ON_A_PICTURE:
        rather = "fewer rows" if interpolate else "--as png --out FOLDER"
        raise UserError(f"--n {n:,}: at most {MOST_ON_A_PICTURE:,} on one picture; take {rather}")
    path = find_run(run, runs)
    exported = sampling.load(path, weights, device)
    chosen = () if classes is None else exported.classes_called(classes.split(","))
    cut = truncation if truncation is not None else exported.truncation
    if form is not None:
        if interpolate or out is None:
            raise UserError(f"--as {form}: give --out FOLDER, and no --interpolate")
        _leave(exported, Asked(n, seed, chosen, cut, scale), out, form, weights, path)
        return
    if interpolate:
        images = exported.interpolations(n, seed, chosen, cut)
    else:
        images = exported.images(n, seed, chosen, cut)
    file = out or path / "samples" / f"{'interpolation' if interpolate else 'drawn'}-s{seed}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    sampling.save_grid(file, images.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    print(file)


def _leave(
    exported: "TrainedGenerator", asked: "Asked", folder: Path, form: str, weights: str, path: Path
) -> None:
    from sagan_bench.cli.progress import View
    from sagan_bench.runs import records
    from sagan_bench.session import sample_sets

    if form not in sample_sets.FORMS:
        raise UserError(f"--as {form}: {closest(form, list(sample_sets.FORMS))}")
    record = records.read(path)
    about = {
        "run": record.run, "digest": record.config_digest, "step": exported.step,
        "weights": weights,
    }  # fmt: skip
    with stopping() as stop, View() as view:
        progress = view.counter("sampling", stop)
        new = sample_sets.leave(exported, asked, folder, form, about, progress)
    there = f"; {asked.n - new:,} were there" if new < asked.n else ""
    say(f"{new:,} images made{there}", error=True)
    print(folder)
