"""Folders of picture files: found, given classes and splits, and read.

Classes are the first-level subfolders, sorted, with pictures at any depth, as torchvision's
ImageFolder has them (a test holds the two to that); why its listing is not used is in
docs/adr/0005-real-data.md.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sagan_bench.data.decoding import RESIZE, Geometry, decode
from sagan_bench.data.listing import (
    Chunk,
    DataSpec,
    Listing,
    Part,
    Source,
    at_most,
    digest16,
    hold_out,
    printable,
    ranked,
    some,
)
from sagan_bench.errors import UserError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
)
"""File names that count as pictures, in any case."""

_FILES_A_TASK = 64


class File(NamedTuple):
    """A file below a root: its relative name with ``/``, its bytes, its time of change."""

    name: str
    size: int
    mtime_ns: int


class Splits(NamedTuple):
    """Names of the files of each split, and the folder (``train/``) that each lies in, if any."""

    train: list[str]
    test: list[str]
    train_folder: str
    test_folder: str
    rule: str


def folder(spec: DataSpec) -> Source:
    """Find a folder of pictures, with or without a subfolder for each class.

    Without subfolders there is one class, ``images``. ``train/`` with ``test/`` or ``val/`` are
    splits; else a picture is held out for testing where the hash of its name falls in the lowest
    tenth. Names that start with a dot are skipped. The order is that of the hashes: the first n of
    a split are a fair sample of it.
    """
    files = scan(spec.path)
    return Source(
        kind=spec.kind,
        image_size=spec.image_size,
        key=files_key(spec, spec.path, files),
        listing=partial(folder_listing, spec, spec.path, [file.name for file in files]),
        geometry=spec.geometry,
    )


def folder_listing(spec: DataSpec, root: Path, names: list[str]) -> Listing:
    """List the pictures ``names`` below ``root`` by the rules of `folder`."""
    return listed(spec, root, split(names, ("test", "val")))


def listed(spec: DataSpec, root: Path, splits: Splits) -> Listing:
    """List splits whose first-level folders are classes."""
    train = splits.train[: at_most(len(splits.train), spec.train_images, "training", str(root))]
    test = splits.test[: at_most(len(splits.test), spec.test_images, "test", str(root))]
    classes = _classes(splits, root)
    geometry = spec.geometry
    return Listing(
        classes=tuple(map(printable, classes)),
        train=_part(root, train, splits.train_folder, classes, geometry),
        test=_part(root, test, splits.test_folder, classes, geometry) if test else None,
        split_rule=splits.rule,
    )


# --- finding ---------------------------------------------------------------------------------


def scan(root: Path) -> list[File]:
    """Return every picture below ``root``, sorted by name.

    Raises:
        UserError: There is no such folder, it cannot be read, or it holds no picture.
    """
    check_folder(root)
    try:
        files = sorted(_walk(str(root), "", ()))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not files:
        kinds = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
        raise UserError(f"no pictures in {root} or below it; looked for {kinds}")
    return files


def check_folder(root: Path, fetched_as: str | None = None) -> None:
    """Raise `UserError` unless ``root`` is a folder; ``fetched_as`` is what can be downloaded."""
    if not root.exists():
        fetch = f", or fetch it: data download {fetched_as} {root}" if fetched_as else ""
        raise UserError(f"there is no folder {root}; check the path after the colon{fetch}")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give the folder that holds the data")


def _walk(path: str, prefix: str, above: tuple[str, ...]) -> Iterator[File]:
    here = os.path.realpath(path)
    if here in above:  # a link that leads back up
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
            elif _is_picture(entry):
                # A broken link is listed too: reading it refuses it by name.
                facts = entry.stat(follow_symlinks=entry.is_file())
                yield File(prefix + entry.name, facts.st_size, facts.st_mtime_ns)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    return suffix in EXTENSIONS and (entry.is_file() or entry.is_symlink())


def files_key(spec: DataSpec, root: Path, files: Iterable[File], *more: str) -> str:
    """Return a key that changes with the place, names, sizes and times of files, and the wish."""
    # The path is in the key, though in no fingerprint: unpacked archives can agree in names, sizes
    # and times and still hold other pictures.
    listing = hashlib.sha256(os.fsencode(root.resolve()))
    for file in files:
        listing.update(os.fsencode(f"\0{file.name}\0{file.size}\0{file.mtime_ns}"))
    return digest16([spec.kind, listing.hexdigest(), RESIZE, *spec.wish, *more])


# --- splits ----------------------------------------------------------------------------------


def split(names: list[str], others: Sequence[str]) -> Splits:
    """Split by ``train/`` and the first of ``others`` that is there, else by hashes."""
    folders = heads(names)
    other = next((name for name in others if name in folders), None)
    if "train" not in folders or other is None:
        train, test, rule = hold_out(names)
        return Splits(train, test, "", "", rule)
    train, test = below(names, "train/"), below(names, f"{other}/")
    unused = len(names) - len(train) - len(test)
    rule = f"train/ and {other}/ of the folder" + (
        f"; unused beside them: {unused}" if unused else ""
    )
    return Splits(ranked(train), ranked(test), "train/", f"{other}/", rule)


def below(names: Iterable[str], prefix: str) -> list[str]:
    """Return those of ``names`` that lie in the folder ``prefix``."""
    return [name for name in names if name.startswith(prefix)]


def heads(names: Iterable[str]) -> list[str]:
    """Return the first-level folders of ``names``, sorted."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})


# --- classes ---------------------------------------------------------------------------------


def _classes(splits: Splits, root: Path) -> tuple[str, ...]:
    if not splits.train_folder:
        return _class_names(splits.train + splits.test, root, "")
    classes = _class_names(splits.train, root, splits.train_folder)
    test_classes = _class_names(splits.test, root, splits.test_folder) if splits.test else ()
    if unknown := sorted(set(test_classes) - set(classes)):
        raise UserError(
            f"{root / splits.test_folder} holds {some(unknown)}, which "
            f"{root / splits.train_folder} does not; give both the same class folders"
        )
    return classes


def _class_names(names: list[str], root: Path, prefix: str) -> tuple[str, ...]:
    inner = [name.removeprefix(prefix) for name in names]
    folders = heads(inner)
    loose = sum("/" not in name for name in inner)
    where = root / prefix
    if not folders:
        return ("images",)
    if loose:
        raise UserError(
            f"{where} holds loose images ({loose}) beside folders of images ({some(folders)}); "
            "move the loose ones into a class folder or away"
        )
    if len(folders) == 1:
        _refuse_level_too_many(inner, where)
    _refuse_empty_class(folders, where)
    return tuple(folders)


def _refuse_level_too_many(names: list[str], where: Path) -> None:
    """Raise if following lone folders down from ``where`` leads to a choice of folders."""
    inside = where
    while len(folders := heads(names)) == 1 and all("/" in name for name in names):
        inside /= folders[0]
        names = [name.partition("/")[2] for name in names]
    if all("/" in name for name in names):
        raise UserError(
            f"{where} is one folder level too high: it holds only {inside.relative_to(where)}/, "
            f"which holds {len(folders)} folders of images ({some(folders)}), so that all images "
            f"would be of one class; did you mean {inside}?"
        )


def _refuse_empty_class(folders: Sequence[str], where: Path) -> None:
    with os.scandir(where) as entries:
        there = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    if empty := sorted(set(there) - set(folders)):
        raise UserError(
            f"{where} holds {len(folders)} folders of images ({some(folders)}), and beside them "
            f"{some(empty)} without any; remove what is no class, or put its images there"
        )


# --- reading ---------------------------------------------------------------------------------


def _part(
    root: Path, names: list[str], prefix: str, classes: tuple[str, ...], geometry: Geometry
) -> Part:
    position = {name: number for number, name in enumerate(classes)}
    labels = [position.get(name.removeprefix(prefix).partition("/")[0], 0) for name in names]
    return files_part(root, names, labels, geometry)


def files_part(root: Path, names: list[str], labels: list[int], geometry: Geometry) -> Part:
    """Return the tasks that read picture files, each with its label."""
    spans = (slice(start, start + _FILES_A_TASK) for start in range(0, len(names), _FILES_A_TASK))
    tasks = [partial(read_files, str(root), names[s], labels[s], geometry) for s in spans]
    return Part(len(names), tasks)


def read_files(root: str, names: list[str], labels: list[int], geometry: Geometry) -> Chunk:
    """Decode pictures; those that cannot be read are left out and named with the reason."""
    pictures = ((printable(name), os.path.join(root, name)) for name in names)
    done = decode(pictures, len(names), geometry)
    return Chunk(done.images, np.array(labels, np.int64)[done.places], done.refused, done.enlarged)
