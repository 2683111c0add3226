"""Prepared images: decoded once into a memory map in the cache, then read at memory speed.

A store is a folder of the cache: ``train.images.npy`` and ``train.labels.npy``, the same for
``test`` where there is one, ``manifest.json``, and ``source.txt`` with what the user wrote. A
reader meets all of it or nothing (:mod:`sagan_bench.data.building`).
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import platformdirs
from filelock import Timeout
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.locks import described, holding
from sagan_bench.core.stored import first_trouble
from sagan_bench.data.decoding import Fit, Labels
from sagan_bench.data.listing import DataSpec, digest16
from sagan_bench.data.sources import open_source
from sagan_bench.data.sources._base import Source
from sagan_bench.data.verification import DAMAGED, Verification, verification_of

MANIFEST, SOURCE = "manifest.json", "source.txt"
BUILDING = ".building"
"""Suffix of the folder of a store that is not finished."""

_logger = logging.getLogger(__name__)


class SplitFacts(BaseModel):
    """Of one split: its number of images, and the SHA-256 of its pixels and then its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: PositiveInt
    content_sha256: str
    images_per_class: tuple[NonNegativeInt, ...]


class Manifest(BaseModel):
    """What a store holds and how it was made; nothing in it names a place on this machine.

    ``crop``, ``fit`` and ``resize`` are null where images are made at their size. ``definition``
    is what determines the images where that is known without reading any, else null.
    ``selection`` is the category or attribute asked for. ``pixel_range`` is the least and greatest
    value of the training images; ``enlarged`` counts the pictures smaller than ``image_size``.
    ``refused_first`` names the first of the ``refused`` unreadable pictures that were left out.
    ``remarks`` say what else lay there: passed over, or read under unusual names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = 2
    kind: str
    selection: str | None
    image_size: PositiveInt
    crop: PositiveInt | None
    fit: Fit | None
    resize: str | None
    split_rule: str
    classes: tuple[str, ...]
    train: SplitFacts
    test: SplitFacts | None
    definition: dict[str, int] | None
    pixel_range: tuple[NonNegativeInt, NonNegativeInt]
    enlarged: NonNegativeInt
    refused: NonNegativeInt
    refused_first: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, SplitFacts]:
        """The splits there are, by name."""
        return {"train": self.train} | ({"test": self.test} if self.test else {})

    @model_serializer(mode="wrap")
    def _without_empty_remarks(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Where there are none, a manifest is what it was before there could be any.
        return {key: value for key, value in write(self).items() if key != "remarks" or value}

    def fingerprint(self) -> str:
        """Return 16 hex digits of the definition, else of the content and how it was made."""
        if self.definition is not None:
            return digest16(self.definition)
        made = self.model_dump(mode="json", include={"kind", "image_size", "crop", "fit", "resize"})
        content = {
            name: facts and {"images": facts.images, "content_sha256": facts.content_sha256}
            for name, facts in (("train", self.train), ("test", self.test))
        }
        # Its own version, which stays when the manifest gains remarks: digests of runs hold it.
        return digest16({"schema_version": 1, **made, **content, "classes": len(self.classes)})


@dataclass(frozen=True)
class Split:
    """Images of one split, uint8 (N, 3, S, S), memory-mapped; labels int64 (N,); both read-only."""

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Store:
    """A prepared data set; ``verification`` finds out whether its content has changed."""

    manifest: Manifest
    train: Split
    test: Split | None
    verification: Verification


def cache_root() -> Path:
    """Return ``$SAGAN_BENCH_CACHE``, else the platform's cache folder of this program."""
    given = os.environ.get("SAGAN_BENCH_CACHE")
    try:
        return Path(given).expanduser() if given else platformdirs.user_cache_path("sagan_bench")
    except RuntimeError as error:  # a user without a home
        raise UserError(
            f"{error}; or set SAGAN_BENCH_CACHE to a folder for prepared data"
        ) from error


def place_of(source: Source, cache: Path | None) -> Path:
    """Return the folder of a source's store, whether it is there or not.

    That of a source of one's own is of what its file held: another source is other images.
    """
    root = cache_root() if cache is None else cache
    own = extensions.source_of("SOURCES", source.name)[:8]
    name = f"{source.name}-{source.spec.image_size}px-{source.key}"
    return root / "stores" / (f"{name}-{own}" if own else name)


def lock_of(place: Path) -> Path:
    """Return the file whose lock whoever changes ``place`` must hold."""
    return Path(f"{place}.lock")


def known_fingerprint(spec: DataSpec, cache: Path | None = None) -> str | None:
    """Return the fingerprint of ``spec`` if it is known without preparing anything, else None.

    Raises:
        UserError: The source is not there or unclear.
    """
    source = open_source(spec)
    if source.definition is not None:
        return digest16(source.definition)
    if store := open_store(place_of(source, cache), skip_bad=True):
        return store.manifest.fingerprint()
    source.listing()  # refuses now what could not be prepared later
    return None


# --- opening ---------------------------------------------------------------------------------


def open_store(place: Path, skip_bad: bool) -> Store | None:
    """Return the store at ``place``; None if it is absent, damaged or lacks pictures it may not."""
    if not place.exists():
        return None
    try:
        if (place / DAMAGED).exists():
            raise ValueError((place / DAMAGED).read_text(errors="replace").strip())
        manifest = Manifest.model_validate_json((place / MANIFEST).read_bytes())
        store = _open(place, manifest)
    except (OSError, ValueError) as error:
        _logger.warning("%s is damaged and will be built again: %s", place, error)
        return None
    if manifest.refused and not skip_bad:
        return None
    return store


def _open(place: Path, manifest: Manifest) -> Store:
    """Open what the manifest names; ValueError where its files or labels are not as it says."""
    splits = {name: _open_split(place, name, manifest) for name in manifest.splits}
    sums = {
        name: (manifest.splits[name].content_sha256, split.images.nbytes, split.labels.nbytes)
        for name, split in splits.items()
    }
    return Store(manifest, splits["train"], splits.get("test"), verification_of(place, sums))


def _open_split(place: Path, name: str, manifest: Manifest) -> Split:
    facts, side, classes = manifest.splits[name], manifest.image_size, len(manifest.classes)
    images = _map(place / f"{name}.images.npy", np.uint8, (facts.images, 3, side, side))
    labels = _map(place / f"{name}.labels.npy", np.int64, (facts.images,))
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name}.labels.npy holds labels beyond the {classes} classes")
    if tuple(np.bincount(labels, minlength=classes).tolist()) != facts.images_per_class:
        raise ValueError(f"{name}.labels.npy holds other numbers of images of each class")
    return Split(images, labels)


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """Map an array read-only; ValueError unless file and header are what the manifest says."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # damaged headers make their reader raise anything
        raise ValueError(f"{path.name} is no array: {error}") from error
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {shape}")
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.name} has the wrong size")
    return array


# --- what is there ---------------------------------------------------------------------------


class Prepared(NamedTuple):
    """A store in the cache, or a build of one that was broken off (``manifest`` is None)."""

    place: Path
    source: str
    manifest: Manifest | None
    size_bytes: int


def prepared(cache: Path | None = None) -> list[Prepared]:
    """Return what is in the cache, sorted by place."""
    root = (cache_root() if cache is None else cache) / "stores"
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    return list(filter(None, map(_prepared, folders)))


def _prepared(place: Path) -> Prepared | None:
    try:
        size, source = sum(path.stat().st_size for path in place.iterdir()), _source_of(place)
    except OSError:  # another process has just removed it
        size, source = 0, None
    manifest, damage = None, "is damaged (%s); it is made anew when it is needed"
    try:
        manifest = Manifest.model_validate_json((place / MANIFEST).read_bytes())
        for name in manifest.splits:
            _open_split(place, name, manifest)
    except OSError:  # unfinished, or another process has just removed it
        pass
    except ValidationError as error:
        _logger.warning(f"%s {damage}", place / MANIFEST, first_trouble(error))
    except ValueError as error:
        _logger.warning(f"%s {damage}", place, error)
    return Prepared(place, source or "?", manifest, size) if place.exists() else None


def _source_of(place: Path) -> str | None:
    """Return what the user wrote; None of a store of an older version."""
    try:
        return (place / SOURCE).read_text(errors="replace").strip()
    except OSError:
        return None


def remove(wanted: str, cache: Path | None = None) -> list[Prepared]:
    """Remove the stores whose folder or source is called ``wanted`` and return what they were.

    Raises:
        UserError: There is none, or a process is building it.
    """
    stores = prepared(cache)
    chosen = [store for store in stores if wanted in (store.source, store.place.name)]
    if not chosen:
        known = "".join(f"\n  {store.place.name}  {store.source}" for store in stores)
        raise UserError(f"nothing prepared is called {wanted!r}; there is:{known or ' nothing'}")
    for store in chosen:
        with _taken(store.place):
            shutil.rmtree(store.place, ignore_errors=True)
    return chosen


@contextmanager
def _taken(place: Path) -> Iterator[None]:
    lock = lock_of(place.with_name(place.name.removesuffix(BUILDING)))
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(lock))
        except Timeout as error:
            raise UserError(
                f"{place.name} is being prepared by {described(lock)}; end that process first"
            ) from error
        except OSError as error:
            raise UserError(
                f"{place.name} cannot be locked: {error.strerror}; remove {place} by hand"
            ) from error
        yield


def sweep(place: Path, source: str) -> None:
    """Remove builds for ``source`` that were broken off, and whose pictures have since changed."""
    own = place.with_name(place.name + BUILDING)
    for build in sorted(place.parent.glob(f"*{BUILDING}")):
        if build == own or _source_of(build) != source:
            continue
        try:
            with holding(lock_of(build.with_suffix(""))):
                shutil.rmtree(build, ignore_errors=True)
        except Timeout:
            _logger.info("%s is being built by another process", build.name)
        except OSError as error:
            _logger.info("%s cannot be locked and stays: %s", build.name, error)
