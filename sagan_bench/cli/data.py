"""The verbs of ``data``: fetch, prepare, look at and remove real images.  None imports torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.options import Json, command, program
from sagan_bench.cli.signals import stopping
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES

if TYPE_CHECKING:
    from sagan_bench.data.listing import DataSpec
    from sagan_bench.data.store import Prepared, Store

app = typer.Typer(help="Download, prepare, look at and remove data sets.", no_args_is_help=True)

SPEC_HELP = f"KIND, KIND:PATH or KIND:PATH#PART; kinds: {', '.join(SOURCES)}"
Spec = Annotated[str, typer.Argument(help=SPEC_HELP)]
ImageSize = Annotated[int | None, typer.Option(help="Side in pixels: 32, 64, 128, 256")]
Preset = Annotated[str | None, typer.Option(help="Take size, crop and fit from this preset")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="data.key=value, e.g. data.crop=160")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes \\[default: one a core]")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out")]


@app.command()
def download(
    name: Annotated[str, typer.Argument(help=f"Of {', '.join(SOURCES)}")],
    root: Annotated[Path, typer.Argument(help="Folder to put it in")],
    category: Annotated[str | None, typer.Option(help="Of lsun, e.g. church_outdoor")] = None,
) -> None:
    """Fetch a data set from its authors; the same command goes on where it was broken off."""
    from sagan_bench.cli.progress import View
    from sagan_bench.data.download import download as fetch

    with stopping() as stop, View() as view:
        source = fetch(name, root, category=category, progress=view.counter("MiB", stop, 2**20))
    print(f"{root} holds it; next: {command('data', 'show', source)}")


@app.command()
def prepare(
    spec: Spec,
    image_size: ImageSize = None,
    preset: Preset = None,
    sets: Sets = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Decode a data set into the cache, as the first training run on it would."""
    store = _prepared(_data_spec(spec, image_size, preset, sets), workers, skip_bad)
    if as_json:
        print(store.manifest.model_dump_json(indent=2))
    else:
        _print_manifest(store)


@app.command()
def show(
    spec: Spec,
    image_size: ImageSize = None,
    preset: Preset = None,
    sets: Sets = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    out: Annotated[Path | None, typer.Option(help="The PNG \\[default: KIND-SIZEpx.png]")] = None,
) -> None:
    """Write a labelled grid of the images as they are trained on, and print the manifest."""
    from sagan_bench.data.contact_sheet import contact_sheet

    images = _data_spec(spec, image_size, preset, sets)
    store = _prepared(images, workers, skip_bad)
    path = out or Path(f"{images.kind}-{images.image_size}px.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(store).save(path)
    except (OSError, ValueError) as error:  # a ValueError: no known extension
        raise UserError(f"--out {path}: {error}") from error
    _print_manifest(store)
    print(f"grid          {path}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what is prepared in the cache."""
    from sagan_bench.data.store import cache_root, prepared

    stores = prepared()
    if as_json:
        print(json.dumps([_entry(store) for store in stores], indent=2))
        return
    if not stores:
        print(f"nothing is prepared in {cache_root()}; begin with: {program()} data prepare SPEC")
        return
    from sagan_bench.cli.tables import print_table

    header = ("store", "source", "px", "train", "test", "classes", "MiB")
    print_table("", header, (list(map(str, _entry(store).values())) for store in stores))
    print(f"in {cache_root() / 'stores'}; remove one with: {program()} data remove STORE")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A store's name or its source, as in data list")],
) -> None:
    """Remove what was prepared; the source itself is not touched."""
    from sagan_bench.data.store import remove as remove_stores

    for store in remove_stores(name):
        print(f"removed {store.place} ({store.size_bytes / 2**20:.1f} MiB)")


def _data_spec(
    source: str, image_size: int | None, preset: str | None, sets: list[str] | None
) -> "DataSpec":
    """Return what a training run with the same options would want."""
    from sagan_bench.config.layers import read
    from sagan_bench.data.listing import DataSpec

    flags: dict[str, tuple[str, Any]] = {"data.source": ("SPEC", source)}
    if image_size is not None:
        flags["data.image_size"] = ("--image-size", image_size)
    return DataSpec.of(read(preset=preset, sets=sets or (), flags=flags).config.data)


def _prepared(spec: "DataSpec", workers: int | None, skip_bad: bool) -> "Store":
    from sagan_bench.cli.progress import View
    from sagan_bench.data.building import prepare

    with stopping() as stop, View() as view:
        progress = view.counter("images", stop)
        return prepare(spec, progress=progress, workers=workers, skip_bad=skip_bad)


def _print_manifest(store: "Store") -> None:
    manifest = store.manifest
    how = f"{manifest.fit}, {manifest.resize}" if manifest.resize else "made at this size"
    crop = f"centre crop {manifest.crop} px, " if manifest.crop else ""
    low, high = manifest.pixel_range
    lines: dict[str, Any] = {
        "source": manifest.kind + (f" #{manifest.selection}" if manifest.selection else ""),
        "image size": f"{manifest.image_size} px ({crop}{how})",
        "train": f"{manifest.train.images} images",
        "test": f"{manifest.test.images} images" if manifest.test else "none",
        "split": manifest.split_rule,
        "classes": f"{len(manifest.classes)}: {_counted(store)}",
        "pixel values": f"{low} to {high}",
        "enlarged": manifest.enlarged,
        "left out": ", ".join((str(manifest.refused), *manifest.refused_first)),
        "fingerprint": manifest.fingerprint(),
    }
    for key, value in lines.items():
        print(f"{key:<13} {value}")
    for remark in manifest.remarks:
        print(f"{'remark':<13} {remark}")


def _counted(store: "Store", most: int = 10) -> str:
    counts = store.manifest.train.images_per_class
    pairs = [f"{name} ({n})" for name, n in zip(store.manifest.classes, counts, strict=True)]
    return ", ".join(pairs[:most]) + (", ..." if len(pairs) > most else "")


def _entry(store: "Prepared") -> dict[str, Any]:
    manifest = store.manifest
    return {
        "store": store.place.name,
        "source": store.source,
        "image_size": manifest.image_size if manifest else "unfinished",
        "train": manifest.train.images if manifest else None,
        "test": manifest.test.images if manifest and manifest.test else None,
        "classes": len(manifest.classes) if manifest else None,
        "mib": round(store.size_bytes / 2**20, 1),
    }
