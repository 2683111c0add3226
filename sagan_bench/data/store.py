"""Prepared images: decoded once into a memory map in the cache, then read at memory speed.

A store is a folder of the cache: ``train.images.npy`` and ``train.labels.npy``, the same for
``test`` where there is one, and ``manifest.json``. It is built beside its place under a lock and
renamed into place when complete, so that a reader meets all of it or nothing.
"""

import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import platformdirs
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from sagan_bench.data.seeding import generator
from sagan_bench.data.sources import (
    RESIZE,
    Chunk,
    DataSpec,
    Fit,
    Labels,
    Source,
    Task,
    digest16,
    open_source,
    start_worker,
)
from sagan_bench.errors import UserError
from sagan_bench.files import sync_folder, synced_file
from sagan_bench.host import cores

Progress = Callable[[int, int], None]
"""Called with the images done so far and the images in all."""

_SHOWN = 10  # names of refused pictures that an error or a manifest lists
_TASKS_WORTH_PROCESSES = 4  # below that a process takes longer to start than to decode
_logger = logging.getLogger(__name__)


class SplitFacts(BaseModel):
    """Of one split: its number of images, and the SHA-256 of its pixels and then its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: PositiveInt
    content_sha256: str


class Manifest(BaseModel):
    """What a store holds and how it was made; nothing in it names a place on this machine.

    ``crop``, ``fit`` and ``resize`` are null where images are made at their size. ``definition``
    is what determines the images where that is known without reading any, else null.
    ``refused_first`` names the first of the ``refused`` unreadable pictures that were left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: str
    image_size: PositiveInt
    crop: PositiveInt | None
    fit: Fit | None
    resize: str | None
    split_rule: str
    classes: tuple[str, ...]
    train: SplitFacts
    test: SplitFacts | None
    definition: dict[str, int] | None
    refused: NonNegativeInt = 0
    refused_first: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return 16 hex digits of the definition, else of the content and how it was made."""
        if self.definition is not None:
            return digest16(self.definition)
        made = self.model_dump(
            mode="json",
            include={"schema_version", "kind", "image_size", "crop", "fit", "resize", "train"},
        )
        test = self.test and self.test.model_dump(mode="json")
        return digest16({**made, "test": test, "classes": len(self.classes)})


class Batch(NamedTuple):
    """Images uint8 (size, 3, S, S) and labels int64 (size,), both on the CPU."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Split:
    """Images of one split, uint8 (N, 3, S, S), memory-mapped; labels int64 (N,); both read-only."""

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Store:
    """A prepared data set."""

    manifest: Manifest
    train: Split
    test: Split | None

    def batch(self, seed: int, index: int, size: int, *, flip: bool = False) -> Batch:
        """Return batch ``index`` of the stream of ``seed``: a pure function, random access.

        An epoch is a permutation of the training images, drawn from ``(seed, "data", epoch)``;
        what is left over below one batch waits for another epoch. ``flip`` mirrors each image with
        probability 1/2, drawn from ``(seed, "flip", index)``.

        Raises:
            UserError: There are fewer images than one batch takes.
        """
        count = len(self.train)
        if count < size:
            raise UserError(
                f"a batch takes {size} images, the data have {count}; use fewer a batch"
            )
        epoch, position = divmod(index, count // size)
        rows = _permutation(seed, epoch, count)[position * size : (position + 1) * size]
        images = torch.from_numpy(self.train.images[rows])
        if flip:
            mirrored = torch.rand(size, generator=generator(seed, "flip", index)) < 0.5
            images[mirrored] = images[mirrored].flip(-1)
        return Batch(images, torch.from_numpy(self.train.labels[rows]))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator(seed, "data", epoch)).numpy()


def cache_root() -> Path:
    """Return ``$SAGAN_BENCH_CACHE``, else the platform's cache folder of this program."""
    given = os.environ.get("SAGAN_BENCH_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("sagan_bench")


def known_fingerprint(spec: DataSpec, cache: Path | None = None) -> str | None:
    """Return the fingerprint of ``spec`` if it is known without preparing anything, else None."""
    source = open_source(spec)
    if source.definition is not None:
        return digest16(source.definition)
    store = _open(_place(source, cache), skip_bad=True)
    return store.manifest.fingerprint() if store else None


def prepare(
    spec: DataSpec,
    cache: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    skip_bad: bool = False,
) -> Store:
    """Return the prepared images of ``spec``, from the cache if they are there, else built now.

    Of several processes that want one store, one builds it and the others wait for it. A build
    that is killed leaves nothing that is taken for a store; a store with a file missing or of the
    wrong size is built again. ``workers`` is by default the number of usable cores.

    Raises:
        UserError: The source is not there or unclear; the disk is too small; or pictures cannot be
            read, unless ``skip_bad`` leaves them out (the manifest then names them).
    """
    source = open_source(spec)
    place = _place(source, cache)
    store = _open(place, skip_bad)
    if store is None:
        with _lock(place, progress):
            store = _open(place, skip_bad)  # another process may have built it meanwhile
            if store is None:
                _build(place, source, progress, workers or cores(), skip_bad)
                store = _open(place, skip_bad)
    if store is None:
        raise UserError(f"{place} was damaged right after it was written; check that disk")
    if store.manifest.refused:
        _logger.warning("%d unreadable pictures are left out", store.manifest.refused)
    return store


def _place(source: Source, cache: Path | None) -> Path:
    root = cache_root() if cache is None else cache
    return root / "stores" / f"{source.kind}-{source.image_size}px-{source.key}"


@contextmanager
def _lock(place: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of ``place``: of two processes that prepare it, the second waits here.

    ``progress`` is told of no progress meanwhile, so that it can end the waiting by raising.
    """
    lock = FileLock(f"{place}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0.5)
            except Timeout:
                _logger.info("waiting for another process that is preparing %s", place.name)
                if progress:
                    progress(0, 1)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {place.parent}: {error.strerror}; "
            "set SAGAN_BENCH_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


# --- opening ---------------------------------------------------------------------------------


def _open(place: Path, skip_bad: bool) -> Store | None:
    """Return the store at ``place``; None if it is absent, damaged or lacks pictures it may not."""
    if not place.exists():
        return None
    try:
        manifest = Manifest.model_validate_json((place / "manifest.json").read_bytes())
        side = manifest.image_size
        train = _open_split(place, "train", manifest.train, side)
        test = _open_split(place, "test", manifest.test, side) if manifest.test else None
    except (OSError, ValueError, EOFError) as error:
        _logger.warning("%s is damaged and will be built again: %s", place, error)
        return None
    if manifest.refused and not skip_bad:
        return None
    return Store(manifest, train, test)


def _open_split(place: Path, name: str, facts: SplitFacts, side: int) -> Split:
    images = _map(place / f"{name}.images.npy", np.uint8, (facts.images, 3, side, side))
    labels = _map(place / f"{name}.labels.npy", np.int64, (facts.images,))
    return Split(images, labels)


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Any:
    """Map an array read-only; ValueError unless file and header are what the manifest says."""
    array = np.load(path, mmap_mode="r")
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {shape}")
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.name} has the wrong size")
    return array


# --- building --------------------------------------------------------------------------------


class _Written(NamedTuple):
    """What has been written of one split."""

    images: int
    content_sha256: str
    refused: list[str]


def _build(
    place: Path, source: Source, progress: Progress | None, workers: int, skip_bad: bool
) -> None:
    temporary = place.with_name(f"{place.name}.building")
    shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
    _check_space(place.parent, source)
    temporary.mkdir()
    try:
        written = _write_splits(temporary, source, progress, workers)
        manifest = _manifest(source, written, skip_bad)
        with synced_file(temporary / "manifest.json") as file:
            file.write(manifest.model_dump_json(indent=2).encode())
        sync_folder(temporary)
        shutil.rmtree(place, ignore_errors=True)  # a damaged store
        temporary.rename(place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_space(folder: Path, source: Source) -> None:
    images = sum(part.images for part in source.parts.values())
    needed, free = images * (3 * source.image_size**2 + 8), shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{images} prepared images need {needed / 2**30:.2f} GiB, {folder} has "
            f"{free / 2**30:.2f} GiB free; make room or set SAGAN_BENCH_CACHE to a larger disk"
        )


def _write_splits(
    folder: Path, source: Source, progress: Progress | None, workers: int
) -> dict[str, _Written]:
    total = sum(part.images for part in source.parts.values())
    written: dict[str, _Written] = {}
    done = 0
    with _pool(source, workers) as pool:
        for name, part in source.parts.items():
            chunks = _watched(_in_order(pool, part.tasks, 2 * workers), progress, done, total)
            written[name] = _write_split(folder, name, chunks, source.image_size)
            done += part.images
    return written


@contextmanager
def _pool(source: Source, workers: int) -> Iterator[Executor | None]:
    """Workers for the tasks of ``source``; None where this thread alone is as quick."""
    tasks = sum(len(part.tasks) for part in source.parts.values())
    if workers == 1 or (source.processes and tasks < _TASKS_WORTH_PROCESSES):
        yield None
    elif source.processes:
        # Spawned, not forked: a fork would carry torch's threads, and this build's lock, along.
        context = get_context("spawn")
        workers = min(workers, tasks)
        with ProcessPoolExecutor(workers, context, initializer=start_worker) as processes:
            yield processes
    else:
        with ThreadPoolExecutor(workers) as threads:
            yield threads


def _in_order(pool: Executor | None, tasks: Sequence[Task], ahead: int) -> Iterator[Chunk]:
    """Yield the chunks in the order of ``tasks``, with at most ``ahead`` under way."""
    if pool is None:
        yield from (task() for task in tasks)
        return
    pending: deque[Future[Chunk]] = deque()
    for task in tasks:
        if len(pending) == ahead:
            yield pending.popleft().result()
        pending.append(pool.submit(task))
    while pending:
        yield pending.popleft().result()


def _watched(
    chunks: Iterable[Chunk], progress: Progress | None, done: int, total: int
) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk
        done += len(chunk.labels) + len(chunk.refused)
        if progress is not None:
            progress(done, total)


def _write_split(folder: Path, name: str, chunks: Iterable[Chunk], side: int) -> _Written:
    digest = hashlib.sha256()
    labels = [np.empty(0, np.int64)]
    refused: list[str] = []
    with synced_file(folder / f"{name}.images.npy") as file:
        # Written, not stored through a map: on a full disk a map ends the process by a signal.
        _write_header(file, (0, 3, side, side))
        for chunk in chunks:
            file.write(chunk.images.data)
            digest.update(chunk.images.data)
            labels.append(chunk.labels)
            refused += chunk.refused
        all_labels = np.concatenate(labels)
        file.seek(0)
        _write_header(file, (len(all_labels), 3, side, side))  # has room for any count
    with synced_file(folder / f"{name}.labels.npy") as file:
        np.save(file, all_labels)
    digest.update(all_labels.data)
    return _Written(len(all_labels), digest.hexdigest(), refused)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _manifest(source: Source, written: dict[str, _Written], skip_bad: bool) -> Manifest:
    refused = sorted(name for split in written.values() for name in split.refused)
    if refused and not skip_bad:
        total = len(refused) + sum(split.images for split in written.values())
        raise UserError(
            f"{len(refused)} of {total} pictures cannot be read{_listed(refused)}\n"
            "mend or remove them"
        )
    if empty := [name for name, split in written.items() if not split.images]:
        raise UserError(f"no picture of the {empty[0]} split can be read{_listed(refused)}")
    facts = {
        name: SplitFacts(images=split.images, content_sha256=split.content_sha256)
        for name, split in written.items()
    }
    geometry = source.geometry
    return Manifest(
        kind=source.kind,
        image_size=source.image_size,
        crop=geometry and geometry.crop,
        fit=geometry and geometry.fit,
        resize=geometry and RESIZE,
        split_rule=source.split_rule,
        classes=source.classes,
        train=facts["train"],
        test=facts.get("test"),
        definition=source.definition,
        refused=len(refused),
        refused_first=tuple(refused[:_SHOWN]),
    )


def _listed(refused: Sequence[str]) -> str:
    lines = "".join(f"\n  {name}" for name in refused[:_SHOWN])
    more = len(refused) - _SHOWN
    return f":{lines}" + (f"\n  ... and {more} more" if more > 0 else "")
