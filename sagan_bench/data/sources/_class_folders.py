"""Picture files by the folders they lie in: given classes, and read.

Classes are the first-level subfolders, sorted, with pictures at any depth, as torchvision's
ImageFolder has them (a test holds the two to that); why its listing is not used is in
docs/adr/0005-real-data.md.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import Chunk, Geometry, decode
from sagan_bench.data.listing import DataSpec, Listing, Part, first_of, printable, some, spans
from sagan_bench.data.sources._base import Source
from sagan_bench.data.sources._scanning import files_key, is_not_data, scan
from sagan_bench.data.sources._splitting import Splits, heads

_FILES_A_TASK = 64


class PictureFiles(Source):
    """A source that is all picture files below a folder."""

    root: Path
    names: list[str]

    def scan(self, root: Path, *more: str) -> None:
        """Find the pictures; ``more`` is what else makes another store of them."""
        pictures = scan(root)
        self.root, self.names, self.remarks = root, pictures.names, pictures.remarks
        self.key = files_key(self.spec, root, pictures.files, *more)


def listed(spec: DataSpec, root: Path, splits: Splits) -> Listing:
    """List splits whose first-level folders are classes."""
    train = first_of(splits.train, spec.train_images, "training", root)
    test = first_of(splits.test, spec.test_images, "test", root)
    classes = _classes(splits, root)
    geometry = spec.geometry
    return Listing(
        classes=tuple(map(printable, classes)),
        train=_part(root, train, splits.train_folder, classes, geometry),
        test=_part(root, test, splits.test_folder, classes, geometry) if test else None,
        split_rule=splits.rule,
    )


# --- classes ---------------------------------------------------------------------------------


def _classes(splits: Splits, root: Path) -> tuple[str, ...]:
    if not splits.train_folder:
        return _class_names(splits.train + splits.test, root, "")
    classes = _class_names(splits.train, root, splits.train_folder)
    test_classes = _class_names(splits.test, root, splits.test_folder) if splits.test else ()
    train, test = root / splits.train_folder, root / splits.test_folder
    unknown = sorted(set(test_classes) - set(classes))
    if unknown and not heads(name.removeprefix(splits.test_folder) for name in splits.test):
        raise UserError(
            f"{test} holds {len(splits.test)} pictures in no class folders; sort them into those "
            f"of {train}, or move them away"
        )
    if unknown:
        raise UserError(
            f"{test} holds {some(unknown)}, which {train} does not; give both the same class "
            "folders"
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
        there = [entry.name for entry in entries if entry.is_dir() and not is_not_data(entry.name)]
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
    tasks = [
        partial(read_files, str(root), names[span], labels[span], geometry)
        for span in spans(len(names), _FILES_A_TASK)
    ]
    return Part(len(names), tasks)


def read_files(root: str, names: list[str], labels: list[int], geometry: Geometry) -> Chunk:
    """Decode pictures; those that cannot be read are left out and named with the reason."""
    pictures = ((printable(name), os.path.join(root, name)) for name in names)
    return decode(pictures, labels, geometry)
