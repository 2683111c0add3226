"""The arrays of a store while they grow: rows are appended, and cut back to what is certain."""

import hashlib
import os
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt

from sagan_bench.data.decoding import Chunk
from sagan_bench.data.store import SplitFacts

_HASHED_AT_ONCE = 2**24


class Changed(Exception):
    """What an earlier attempt has left is not what it wrote."""


class Done(BaseModel):
    """How far one split is: whole tasks, and what they yielded."""

    tasks: NonNegativeInt = 0
    images: NonNegativeInt = 0
    refused: list[str] = []
    enlarged: NonNegativeInt = 0
    low: int = 255
    high: int = 0
    sha256: tuple[str, str] | None = None
    """Of the pixels and of the labels so far; builds of before have none."""

    def count(self, chunk: Chunk) -> None:
        """Add one more task's yield."""
        self.tasks += 1
        self.images += len(chunk.labels)
        self.refused += chunk.refused
        self.enlarged += chunk.enlarged
        self.low = min(self.low, int(chunk.images.min(initial=255)))
        self.high = max(self.high, int(chunk.images.max(initial=0)))


class Noted(BaseModel):
    """What is on the disk for certain: the listing it belongs to, and how far each split is."""

    listing: dict[str, tuple[int, int]]
    """Images and tasks of each split."""
    done: dict[str, Done]

    @property
    def refused(self) -> list[str]:
        """The pictures of all splits that cannot be read, sorted."""
        return sorted(name for done in self.done.values() for name in done.refused)

    @property
    def images(self) -> int:
        """The images of all splits."""
        return sum(done.images for done in self.done.values())


class ArrayFile:
    """A ``.npy`` file to which rows are appended, and their SHA-256.

    Written, not stored through a map: on a full disk a map ends the process by a signal.

    Args:
        path: of the file.
        dtype: of a value.
        row: shape of a row.
        rows: to keep of an earlier attempt; what lies behind them is cut off.

    Raises:
        Changed: There are fewer.
    """

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...], rows: int) -> None:
        self.dtype, self.row, self.digest = np.dtype(dtype), row, hashlib.sha256()
        size = len(self._header(rows)) + rows * int(np.prod(row)) * self.dtype.itemsize
        if rows and not (path.exists() and path.stat().st_size >= size):
            raise Changed
        self.file = path.open("r+b" if rows else "w+b")
        self.write_header(rows)
        self.file.truncate(size)
        while data := self.file.read(_HASHED_AT_ONCE):
            self.digest.update(data)

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows."""
        self.file.write(rows.data)
        self.digest.update(rows.data)

    def sync(self) -> None:
        """Put all rows on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def write_header(self, rows: int) -> None:
        """Say how many rows there are, and stay behind that."""
        self.file.seek(0)
        self.file.write(self._header(rows))

    def _header(self, rows: int) -> bytes:
        """Return the header of the file, which has room for any number of rows."""
        header = BytesIO()
        content = {"descr": self.dtype.str, "fortran_order": False, "shape": (rows, *self.row)}
        np.lib.format.write_array_header_1_0(header, content)
        return header.getvalue()


class Growing:
    """One split's two files while rows are appended to them.

    Raises:
        Changed: They do not hold the rows that were noted.
    """

    def __init__(self, folder: Path, name: str, side: int, done: Done) -> None:
        self.done = done
        images, labels = folder / f"{name}.images.npy", folder / f"{name}.labels.npy"
        with ExitStack() as stack:
            self.images = ArrayFile(images, "|u1", (3, side, side), done.images)
            stack.enter_context(self.images.file)
            self.labels = ArrayFile(labels, "<i8", (), done.images)
            stack.enter_context(self.labels.file)
            if done.sha256 not in (None, self._sums()):
                raise Changed
            self._files = stack.pop_all()

    def _sums(self) -> tuple[str, str]:
        return self.images.digest.hexdigest(), self.labels.digest.hexdigest()

    def append(self, chunk: Chunk) -> None:
        """Add the rows of one task."""
        self.images.append(chunk.images)
        self.labels.append(chunk.labels.astype("<i8"))
        self.done.count(chunk)

    def sync(self) -> None:
        """Put all rows on the disk, and note what they are."""
        self.images.sync()
        self.labels.sync()
        self.done.sha256 = self._sums()

    def finish(self, classes: int) -> SplitFacts:
        """Complete both files and return their facts."""
        for array in (self.images, self.labels):
            array.write_header(self.done.images)
        labels = self.labels.file.read()
        content = self.images.digest.copy()
        content.update(labels)
        counts = np.bincount(np.frombuffer(labels, "<i8"), minlength=classes)
        self.sync()
        return SplitFacts(
            images=self.done.images,
            content_sha256=content.hexdigest(),
            images_per_class=tuple(counts.tolist()),
        )

    def close(self) -> None:
        """Close both files."""
        self._files.close()
