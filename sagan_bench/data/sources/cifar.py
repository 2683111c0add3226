"""CIFAR-10 and CIFAR-100 as their author publishes them: pickled batches for Python."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import Geometry, Pixels, decode
from sagan_bench.data.failures import failure
from sagan_bench.data.listing import Chunk, DataSpec, Labels, Listing, Part, Source, at_most
from sagan_bench.data.sources.pickles import unpickled
from sagan_bench.data.sources.scanning import File, check_folder, files_key

_SIDE = 32
_IMAGES_A_TASK = 500
_LARGEST = 2**30  # bytes of a batch; the largest published one has 154 million


class _Layout(NamedTuple):
    """Where one of the two keeps what."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: bytes
    labels: bytes


_LAYOUTS = {
    "cifar10": _Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        names=b"label_names",
        labels=b"labels",
    ),
    "cifar100": _Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        meta="meta",
        names=b"fine_label_names",
        labels=b"fine_labels",
    ),
}


def cifar10(spec: DataSpec) -> Source:
    """Find ``cifar-10-batches-py`` in the folder, or be it; 10 classes, its own two splits."""
    return _source(spec)


def cifar100(spec: DataSpec) -> Source:
    """Find ``cifar-100-python`` in the folder, or be it; the 100 fine classes, its two splits."""
    return _source(spec)


def _source(spec: DataSpec) -> Source:
    layout, folder = _LAYOUTS[spec.kind], spec.path
    check_folder(folder, spec.kind)
    if (folder / layout.folder).is_dir():
        folder /= layout.folder
    needed = (*layout.train, layout.test, layout.meta)
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}; expected {layout.folder}/ with "
            f"{', '.join(needed)}, as cifar-*-python.tar.gz unpacks"
        )
    return Source(
        kind=spec.kind,
        image_size=spec.image_size,
        key=files_key(spec, folder, [_facts(folder / name) for name in needed]),
        listing=partial(_listing, spec, layout, folder),
        geometry=spec.geometry,
    )


def _facts(path: Path) -> File:
    facts = path.stat()
    return File(path.name, facts.st_size, facts.st_mtime_ns)


def _listing(spec: DataSpec, layout: _Layout, folder: Path) -> Listing:
    classes = _class_names(folder / layout.meta, layout.names)
    part = partial(_part, layout=layout, folder=folder, classes=len(classes), spec=spec)
    test = part((layout.test,), limit=spec.test_images, split="test")
    return Listing(
        classes=classes,
        train=part(layout.train, limit=spec.train_images, split="training"),
        test=test if test.images else None,
        split_rule=f"{', '.join(layout.train)} for training, {layout.test} for testing",
    )


def _class_names(path: Path, key: bytes) -> tuple[str, ...]:
    """Return the names of the classes, which other programs may have written as text."""
    names = _unpickled(path).get(key)
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str | bytes) for name in names)
    ):
        raise UserError(f"{path} names no classes; fetch the archive again")
    return tuple(
        name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
        for name in names
    )


def _part(
    batches: tuple[str, ...],
    *,
    layout: _Layout,
    folder: Path,
    classes: int,
    spec: DataSpec,
    limit: int | None,
    split: str,
) -> Part:
    paths = [str(folder / name) for name in batches]
    counts = [len(_batch(path, layout.labels, classes)[1]) for path in paths]
    wanted = at_most(sum(counts), limit, split, str(folder))
    tasks: list[Callable[[], Chunk]] = []
    left = wanted
    for path, count in zip(paths, counts, strict=True):
        stop = min(count, left)
        left -= stop
        for start in range(0, stop, _IMAGES_A_TASK):
            rows = slice(start, min(start + _IMAGES_A_TASK, stop))
            tasks.append(partial(read_batch, path, layout.labels, classes, rows, spec.geometry))
    return Part(wanted, tasks)


def read_batch(path: str, key: bytes, classes: int, rows: slice, geometry: Geometry) -> Chunk:
    """Return the images and labels of some rows of a batch."""
    images, labels = _batch(path, key, classes)
    pictures = (("", Image.fromarray(image.transpose(1, 2, 0))) for image in images[rows])
    done = decode(pictures, len(labels[rows]), geometry)
    return Chunk(done.images, labels[rows][done.places], done.refused, done.enlarged)


@lru_cache(maxsize=1)
def _batch(path: str, key: bytes, classes: int) -> tuple[Pixels, Labels]:
    """Return the uint8 (n, 3, 32, 32) images and the labels of a batch file."""
    content = _unpickled(Path(path))
    pixels, labels = content.get(b"data"), _numbers(content.get(key), path)
    if (
        labels.ndim != 1
        or not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(labels), 3 * _SIDE**2)
    ):
        raise UserError(f"{path} holds no batch of images with {key.decode()}; fetch it again")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"{path} holds labels beyond its {classes} classes; fetch it again")
    return pixels.reshape(-1, 3, _SIDE, _SIDE), labels


def _numbers(labels: Any, path: str) -> Labels:
    """Return as an array what is one or a flat list: lists in lists may unfold to any size."""
    try:
        if isinstance(labels, np.ndarray):
            flat = labels.dtype.kind in "iu"
        else:
            flat = all(isinstance(label, int) for label in labels)
        if flat:
            return np.array(labels, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} holds odd labels: {error}; fetch it again") from error
    raise UserError(f"{path} holds labels that are no numbers; fetch it again")


def _unpickled(path: Path) -> dict[bytes, Any]:
    """Return the content of a batch, its keys as Python 2 wrote them."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than any batch")
        content = unpickled(path.read_bytes())
    except Exception as error:
        raise failure(error, path) or UserError(
            f"{path} cannot be read: {error}; fetch the archive again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no batch; fetch the archive again")
    return {
        key.encode(errors="replace") if isinstance(key, str) else key: value
        for key, value in content.items()
    }
