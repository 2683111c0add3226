"""What a data set holds, before anything is decoded: splits, classes, and the tasks that decode.

A source (:mod:`sagan_bench.data.sources`) is found quickly and named by a key; its :class:`Listing`
is made only when a store is to be built from it. The store runs the tasks and knows nothing of any
source.

This module and all it imports serve decoding workers, so none of them imports torch.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.core.names import kind_of
from sagan_bench.data.decoding import Chunk, Fit, Geometry

if TYPE_CHECKING:  # not at run time: a decoding worker would start a tenth of a second later
    from sagan_bench.config.schema import DataConfig

HELD_OUT = 0.1
"""Share of a source without splits of its own that becomes the test split."""


@dataclass(frozen=True)
class DataSpec:
    """Which images a run wants, and at what size.

    ``crop`` is a centre crop in pixels of the source, before resizing. ``fit`` says what becomes of
    a picture that is not square then: its largest centred square, or all of it, squashed.
    ``train_images`` and ``test_images`` keep only so many of each split (``test_images=0``: none).
    """

    source: str
    image_size: int
    crop: int | None = None
    fit: Fit = "centre-crop"
    train_images: int | None = None
    test_images: int | None = None

    @classmethod
    def of(cls, data: "DataConfig") -> "DataSpec":
        """Return what a configuration wants."""
        return cls(
            source=data.source,
            image_size=data.image_size,
            crop=data.crop_px,
            fit=data.fit,
            train_images=data.train_images,
            test_images=data.test_images,
        )

    @property
    def kind(self) -> str:
        """The part of ``source`` before the colon."""
        return kind_of(self.source)

    @property
    def path(self) -> Path:
        """The part of ``source`` after the colon, with ``~`` expanded."""
        return Path(self.source.partition(":")[2]).expanduser()

    @property
    def selected(self) -> tuple[Path, str | None]:
        """The path before the last ``#`` and the word after it, for kinds that take one."""
        root, mark, word = str(self.path).rpartition("#")
        is_word = mark and word and "/" not in word
        return (Path(root), word) if is_word else (self.path, None)

    @property
    def geometry(self) -> Geometry:
        """How a picture becomes an image as it is wanted."""
        return Geometry(self.image_size, self.crop, self.fit)

    @property
    def cache_fields(self) -> tuple[str | int | None, ...]:
        """All but the source, for a key."""
        return (self.image_size, self.crop, self.fit, self.train_images, self.test_images)


Task = Callable[[], Chunk]


class Part(NamedTuple):
    """One split of a source: its number of images and the picklable tasks that yield them."""

    images: int
    tasks: Sequence[Task]


class Listing(NamedTuple):
    """The classes by name and the splits of a source; nothing is decoded yet."""

    classes: tuple[str, ...]
    train: Part
    test: Part | None
    split_rule: str

    @property
    def parts(self) -> dict[str, Part]:
        """The splits there are, by name."""
        return {"train": self.train} | ({"test": self.test} if self.test else {})


def digest16(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of ``value`` as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def at_most(available: int, wanted: int | None, split: str, where: str) -> int:
    """Return how many images of a split are used.  Raises `UserError` if there are fewer."""
    if wanted is not None and wanted > available:
        raise UserError(f"{where} has {available} {split} images; {wanted} were asked for")
    if wanted == 0 and split == "training":
        raise UserError(f"{where}: 0 training images were asked for; ask for some")
    return available if wanted is None else wanted


def first_of(names: Sequence[str], wanted: int | None, split: str, where: Path) -> list[str]:
    """Return the names of a split that are used.  Raises `UserError` as `at_most`."""
    return list(names[: at_most(len(names), wanted, split, str(where))])


def spans(count: int, size: int) -> Iterator[slice]:
    """Yield ``count`` rows in slices of ``size``, for tasks."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def hold_out(names: Sequence[str]) -> tuple[list[str], list[str], str]:
    """Split ``names`` by their hashes into train and test, and say so in words.

    The lowest tenth is for testing, at least one name where there are two: adding names moves none.
    """
    names = ranked(names)
    wanted = max(1, sum(_rank(name) < HELD_OUT for name in names))
    count = min(wanted, len(names) - 1)
    rule = f"{HELD_OUT:.0%} held out by the hash of the name" if count else "all for training"
    return names[count:], names[:count], rule


def ranked(names: Sequence[str]) -> list[str]:
    """Return ``names`` in the order of their hashes: the first n are a fair sample of all."""
    return sorted(names, key=_rank)


def _rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of ``names`` for an error message."""
    listed = ", ".join(printable(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed}, ..."


def printable(name: str) -> str:
    """Return ``name`` with the bytes that are not UTF-8 written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
