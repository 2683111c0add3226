"""CIFAR-10 and CIFAR-100 as their author publishes them: pickled batches for Python."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import Chunk, Geometry, Labels, Pixels, decode
from sagan_bench.data.failures import failure
from sagan_bench.data.listing import DataSpec, Listing, Part, at_most, spans
from sagan_bench.data.sources._base import Archive, Published, Source
from sagan_bench.data.sources._pickles import unpickled
from sagan_bench.data.sources._scanning import File, check_folder, files_key

_SITE = "https://www.cs.toronto.edu/~kriz"
_SIDE = 32
_IMAGES_A_TASK = 500
_LARGEST = 2**30  # bytes of a batch; the largest published one has 154 million


class Cifar(Source):
    """One of the two: its folder within the path, or be it; its own two splits."""

    elsewhere = None
    cites = ("krizhevsky2009learning",)
    folder_name: ClassVar[str]
    md5: ClassVar[str]
    train_batches: ClassVar[tuple[str, ...]]
    test_batch: ClassVar[str]
    meta: ClassVar[str]
    """The file with the names of the classes."""
    names_key: ClassVar[bytes]
    labels_key: ClassVar[bytes]

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        check_folder(spec.path, self.name)
        inside = spec.path / self.folder_name
        self.folder = inside if inside.is_dir() else spec.path
        needed = (*self.train_batches, self.test_batch, self.meta)
        if missing := [name for name in needed if not (self.folder / name).is_file()]:
            raise UserError(
                f"{self.folder} lacks {', '.join(missing)}; expected {self.folder_name}/ with "
                f"{', '.join(needed)}, as cifar-*-python.tar.gz unpacks"
            )
        files = [File.of(name, (self.folder / name).stat()) for name in needed]
        self.key = files_key(spec, self.folder, files)

    @classmethod
    def published(cls, category: str | None) -> Published:
        """Return the archive of its author."""
        archive = f"{cls.name.replace('cifar', 'cifar-')}-python.tar.gz"
        return Published(
            archives=(Archive(archive, f"{_SITE}/{archive}", cls.md5, 163, cls.folder_name),),
            page=f"{_SITE}/cifar.html",
            source=f"{cls.name}:{{root}}",
        )

    def listing(self) -> Listing:
        """Return the rows of the batches."""
        classes = _class_names(self.folder / self.meta, self.names_key)
        count, train = len(classes), self.train_batches
        test = self._part((self.test_batch,), self.spec.test_images, "test", count)
        return Listing(
            classes=classes,
            train=self._part(train, self.spec.train_images, "training", count),
            test=test if test.images else None,
            split_rule=f"{', '.join(train)} for training, {self.test_batch} for testing",
        )

    def _part(self, batches: tuple[str, ...], limit: int | None, split: str, classes: int) -> Part:
        paths = [str(self.folder / name) for name in batches]
        counts = [len(_batch(path, self.labels_key, classes)[1]) for path in paths]
        left = wanted = at_most(sum(counts), limit, split, str(self.folder))
        tasks: list[Callable[[], Chunk]] = []
        for path, count in zip(paths, counts, strict=True):
            for rows in spans(min(count, left), _IMAGES_A_TASK):
                task = partial(read_batch, path, self.labels_key, classes, rows, self.spec.geometry)
                tasks.append(task)
            left -= min(count, left)
        return Part(wanted, tasks)


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


def read_batch(path: str, key: bytes, classes: int, rows: slice, geometry: Geometry) -> Chunk:
    """Return the images and labels of some rows of a batch."""
    images, labels = _batch(path, key, classes)
    pictures = (("", Image.fromarray(image.transpose(1, 2, 0))) for image in images[rows])
    return decode(pictures, labels[rows], geometry)


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
