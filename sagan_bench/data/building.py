"""Building a store: decode with all cores, append, and go on after a kill where it was.

The files of a store grow in a folder beside its place, under a lock, and the folder is renamed into
place when complete. What is on the disk for certain is noted in ``progress.json`` every few
seconds; a build that was broken off is cut back to that, its content hashed again, and continued,
so that it ends byte-equal to one that was not.
"""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import BaseFileLock, Timeout
from pydantic import BaseModel, NonNegativeInt

from sagan_bench.core import files
from sagan_bench.core.cpu import cores
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, sync_folder
from sagan_bench.core.locks import acquired
from sagan_bench.data.decoding import RESIZE, decoding_processes, start_worker
from sagan_bench.data.listing import Chunk, DataSpec, Listing, Source, Task
from sagan_bench.data.sources import open_source
from sagan_bench.data.store import (
    BUILDING,
    MANIFEST,
    SOURCE,
    Manifest,
    SplitFacts,
    Store,
    lock_of,
    open_store,
    place_of,
    sweep,
)
from sagan_bench.data.verification import SMALL_BYTES

Progress = Callable[[int, int], None]
"""Called with the images done so far and the images in all."""

PROGRESS = "progress.json"

_SHOWN = 10  # names of refused pictures that an error or a manifest lists
_TASKS_WORTH_PROCESSES = 4  # below that a process takes longer to start than to decode
_SECONDS_BETWEEN_CHECKPOINTS = 2.0
_HASHED_AT_ONCE = 2**24
_logger = logging.getLogger(__name__)


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
    that was killed goes on; a store with a file missing or of the wrong size is built again.
    ``workers`` is by default the number of usable cores.

    Raises:
        UserError: The source is not there or unclear; the disk is too small; or pictures cannot be
            read, unless ``skip_bad`` leaves them out (the manifest then names them).
    """
    source = open_source(spec)
    place = place_of(source, cache)
    store = _whole(place, skip_bad)
    if store is None:
        with _lock(place, progress):
            store = _whole(place, skip_bad)  # another process may have built it meanwhile
            if store is None:
                sweep(place, spec.source)
                with _explained(place, fragile=source.fragile):
                    _build(place, spec, source, progress, workers or cores(), skip_bad)
                store = _whole(place, skip_bad)
    if store is None:
        raise UserError(f"{place} was damaged right after it was written; check that disk")
    # What is passed over may have changed without a change of the images.
    store = replace(store, manifest=store.manifest.model_copy(update={"remarks": source.remarks}))
    _warn(store.manifest)
    return store


def _whole(place: Path, skip_bad: bool) -> Store | None:
    """Return the store at ``place``, if it is there and, where that is quick, found undamaged."""
    store = open_store(place, skip_bad)
    if store is None or store.verification.size_bytes > SMALL_BYTES:
        return store
    try:
        store.verification.finish()
    except UserError as error:
        _logger.warning("%s", error)
        return None
    return store


def _warn(manifest: Manifest) -> None:
    for remark in manifest.remarks:
        _logger.warning("%s", remark)
    if manifest.refused:
        _logger.warning("%d unreadable pictures are left out", manifest.refused)
    if manifest.enlarged:
        _logger.warning(
            "%d pictures have fewer than %d pixels a side and were enlarged",
            manifest.enlarged,
            manifest.image_size,
        )


@contextmanager
def _lock(place: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of ``place``: of two processes that prepare it, the second waits here.

    ``progress`` is told of no progress meanwhile, so that it can end the waiting by raising.
    """
    lock: BaseFileLock | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        while lock is None:
            try:
                lock = acquired(lock_of(place), 0.5)
            except Timeout:
                _logger.info("waiting for another process that is preparing %s", place.name)
                if progress:
                    progress(0, 1)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {place.parent}: {error.strerror or error}; "
            "set SAGAN_BENCH_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(place: Path, *, fragile: bool = False) -> Iterator[None]:
    """Turn a killed worker and a full disk into errors that say what to do."""
    try:
        with files.naming(place):
            yield
    except BrokenProcessPool as error:
        why = "lack of memory" + " or damage to the database" * fragile
        raise UserError(
            f"a decoding process was killed, perhaps for {why}; what is done is kept: "
            "the same command goes on, with --workers 1 in less memory"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of the cache is full; {error.filename}; what is done is kept: make room and "
            "give the same command again, or set SAGAN_BENCH_CACHE to a larger disk"
        ) from error


# --- one build -------------------------------------------------------------------------------


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


class Growing:
    """One split's two files while rows are appended to them.

    Written, not stored through a map: on a full disk a map ends the process by a signal.
    """

    def __init__(self, folder: Path, name: str, side: int, done: Done) -> None:
        self.done = done
        self.row = (3, side, side)
        self.digest, self.labels_digest = hashlib.sha256(), hashlib.sha256()
        self.files = {
            "images": _reopened(folder / f"{name}.images.npy", "|u1", self.row, done.images),
            "labels": _reopened(folder / f"{name}.labels.npy", "<i8", (), done.images),
        }

    def append(self, chunk: Chunk) -> None:
        """Add the rows of one task."""
        self.files["images"].write(chunk.images.data)
        labels = chunk.labels.astype("<i8").data
        self.files["labels"].write(labels)
        self.digest.update(chunk.images.data)
        self.labels_digest.update(labels)
        self.done.count(chunk)

    def sync(self) -> None:
        """Put all rows on the disk, and note what they are."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        self.done.sha256 = self.digest.hexdigest(), self.labels_digest.hexdigest()

    def finish(self, classes: int) -> SplitFacts:
        """Complete both files and return their facts."""
        _write_header(self.files["images"], "|u1", (self.done.images, *self.row))
        _write_header(self.files["labels"], "<i8", (self.done.images,))
        labels = self.files["labels"].read()  # the header left the file at its first row
        self.digest.update(labels)
        counts = np.bincount(np.frombuffer(labels, "<i8"), minlength=classes)
        self.sync()
        return SplitFacts(
            images=self.done.images,
            content_sha256=self.digest.hexdigest(),
            images_per_class=tuple(counts.tolist()),
        )

    def close(self) -> None:
        """Close both files."""
        for file in self.files.values():
            file.close()

    def hash_what_is_there(self) -> None:
        """Take up the digests of the rows of an earlier attempt; `_Changed` if they are others."""
        for what, digest, row in (
            ("images", self.digest, int(np.prod(self.row))),
            ("labels", self.labels_digest, 8),
        ):
            file, left = self.files[what], self.done.images * row
            file.seek(-left, os.SEEK_END)
            while left:
                data = file.read(min(left, _HASHED_AT_ONCE))
                digest.update(data)
                left -= len(data)
        if self.done.sha256 not in (
            None,
            (self.digest.hexdigest(), self.labels_digest.hexdigest()),
        ):
            raise _Changed


class _Changed(Exception):
    """What an earlier attempt has left is not what it wrote."""


def _reopened(path: Path, descr: str, row: tuple[int, ...], rows: int) -> BinaryIO:
    """Open an array file, new or cut back to ``rows`` rows, with its position at the end."""
    file = path.open("r+b" if rows else "w+b")
    _write_header(file, descr, (rows, *row))
    file.truncate(_size(descr, row, rows))
    file.seek(0, os.SEEK_END)
    return file


def _size(descr: str, row: tuple[int, ...], rows: int) -> int:
    """Return the bytes of an array file."""
    return len(_header(descr, (rows, *row))) + rows * int(np.prod(row)) * np.dtype(descr).itemsize


def _write_header(file: BinaryIO, descr: str, shape: tuple[int, ...]) -> None:
    """Write the header and stay behind it."""
    file.seek(0)
    file.write(_header(descr, shape))


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of an array file, which has room for any number of rows."""
    header = BytesIO()
    content = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, content)
    return header.getvalue()


def _build(
    place: Path,
    spec: DataSpec,
    source: Source,
    progress: Progress | None,
    workers: int,
    skip_bad: bool,
) -> None:
    if workers > 1 and source.geometry:
        decoding_processes()  # its imports take as long as the listing does
    listing = source.listing()
    folder = place.with_name(place.name + BUILDING)
    grow = partial(_grow, folder, spec, source, listing, progress, workers, skip_bad)
    try:
        noted, facts = grow()
    except _Changed:
        _logger.warning("%s has changed on the disk and is begun anew", folder)
        shutil.rmtree(folder)
        noted, facts = grow()
    manifest = _manifest(source, listing, noted, facts)
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
    (folder / PROGRESS).unlink()
    files.sweep(folder)  # of killed attempts
    sync_folder(folder)
    shutil.rmtree(place, ignore_errors=True)  # a damaged store
    folder.rename(place)
    sync_folder(place.parent)


def _grow(
    folder: Path,
    spec: DataSpec,
    source: Source,
    listing: Listing,
    progress: Progress | None,
    workers: int,
    skip_bad: bool,
) -> tuple[Noted, dict[str, SplitFacts]]:
    """Write the arrays of a store, from where an earlier attempt has left them."""
    noted = _earlier(folder, source.image_size, listing, skip_bad)
    _check_space(folder.parent, source, listing, noted)
    if not any(done.tasks for done in noted.done.values()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / SOURCE).write_text(f"{spec.source}\n")
    with _open_all(folder, source.image_size, noted) as splits:
        _fill(folder, source, listing, splits, noted, progress, workers)
        _refuse_bad(noted, skip_bad)
        for name, part in listing.parts.items():
            if noted.done[name].images + len(noted.done[name].refused) != part.images:
                raise _Changed  # a damaged note
        classes = len(listing.classes)
        return noted, {name: growing.finish(classes) for name, growing in splits.items()}


@contextmanager
def _open_all(folder: Path, side: int, noted: Noted) -> Iterator[dict[str, Growing]]:
    with ExitStack() as stack:
        splits = {}
        for name, done in noted.done.items():
            splits[name] = Growing(folder, name, side, done)
            stack.callback(splits[name].close)
            splits[name].hash_what_is_there()
        yield splits


def _earlier(folder: Path, side: int, listing: Listing, skip_bad: bool) -> Noted:
    """Return how far a build that was broken off is; from nothing if it cannot be continued.

    One that met bad pictures is begun anew unless they may be left out: they may be mended.
    """
    plan = {name: (part.images, len(part.tasks)) for name, part in listing.parts.items()}
    try:
        noted = Noted.model_validate_json((folder / PROGRESS).read_bytes())
        whole = all(
            _is_there(folder, name, side, done) and (done.tasks or not done.images)
            for name, done in noted.done.items()
        )
    except (OSError, ValueError):
        whole = False
    if whole and noted.listing == plan and (skip_bad or not _refused(noted)):
        return noted
    return Noted(listing=plan, done={name: Done() for name in plan})


def _is_there(folder: Path, name: str, side: int, done: Done) -> bool:
    """Return whether the files of a split hold the rows that were noted."""
    images, labels = (
        (folder / f"{name}.{what}.npy").stat().st_size for what in ("images", "labels")
    )
    return images >= _size("|u1", (3, side, side), done.images) and labels >= _size(
        "<i8", (), done.images
    )


def _check_space(folder: Path, source: Source, listing: Listing, noted: Noted) -> None:
    images = sum(part.images for part in listing.parts.values())
    left = images - sum(done.images for done in noted.done.values())
    needed, free = left * (3 * source.image_size**2 + 8), shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{left} prepared images need {needed / 2**30:.2f} GiB, {folder} has "
            f"{free / 2**30:.2f} GiB free; make room or set SAGAN_BENCH_CACHE to a larger disk"
        )


def _fill(
    folder: Path,
    source: Source,
    listing: Listing,
    splits: dict[str, Growing],
    noted: Noted,
    progress: Progress | None,
    workers: int,
) -> None:
    """Run the tasks that are left and append what they yield."""
    total = sum(part.images for part in listing.parts.values())
    tasks = {name: part.tasks[noted.done[name].tasks :] for name, part in listing.parts.items()}
    due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS
    with _pool(source, sum(map(len, tasks.values())), workers) as pool:
        for name, growing in splits.items():
            for chunk in _in_order(pool, tasks[name], 2 * workers):
                growing.append(chunk)
                if time.monotonic() >= due:
                    _checkpoint(folder, splits, noted)
                    due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS
                if progress is not None:
                    done = sum(one.images + len(one.refused) for one in noted.done.values())
                    progress(done, total)
    _checkpoint(folder, splits, noted)


def _checkpoint(folder: Path, splits: dict[str, Growing], noted: Noted) -> None:
    for growing in splits.values():
        growing.sync()
    atomic_write(folder / PROGRESS, noted.model_dump_json().encode())


@contextmanager
def _pool(source: Source, tasks: int, workers: int) -> Iterator[Executor | None]:
    """Workers for the tasks of ``source``; None where this thread alone is as quick."""
    processes = source.geometry is not None  # pictures hold Python's lock while they are decoded
    few = workers == 1 or (processes and tasks < _TASKS_WORTH_PROCESSES)
    if not tasks or (few and not source.fragile):
        yield None
    elif processes:
        number = min(workers, tasks)
        with ProcessPoolExecutor(number, decoding_processes(), initializer=start_worker) as pool:
            yield pool
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


def _refuse_bad(noted: Noted, skip_bad: bool) -> None:
    """Raise if pictures cannot be read and may not be left out, or if none is left of a split."""
    refused = _refused(noted)
    if refused and not skip_bad:
        total = len(refused) + sum(done.images for done in noted.done.values())
        raise UserError(
            f"{len(refused)} of {total} pictures cannot be read{_listed(refused)}\n"
            "mend or remove them, or leave them out with --skip-bad"
        )
    if empty := [name for name, done in noted.done.items() if not done.images]:
        raise UserError(f"no picture of the {empty[0]} split can be read{_listed(refused)}")


def _refused(noted: Noted) -> list[str]:
    return sorted(name for done in noted.done.values() for name in done.refused)


def _listed(refused: Sequence[str]) -> str:
    lines = "".join(f"\n  {name}" for name in refused[:_SHOWN])
    more = len(refused) - _SHOWN
    return f":{lines}" + (f"\n  ... and {more} more" if more > 0 else "")


def _manifest(
    source: Source, listing: Listing, noted: Noted, facts: dict[str, SplitFacts]
) -> Manifest:
    geometry, refused = source.geometry, _refused(noted)
    train = noted.done["train"]
    return Manifest(
        kind=source.kind,
        selection=source.selection,
        image_size=source.image_size,
        crop=geometry and geometry.crop,
        fit=geometry and geometry.fit,
        resize=geometry and RESIZE,
        split_rule=listing.split_rule,
        classes=listing.classes,
        train=facts["train"],
        test=facts.get("test"),
        definition=source.definition,
        pixel_range=(train.low, train.high),
        enlarged=sum(done.enlarged for done in noted.done.values()),
        refused=len(refused),
        refused_first=tuple(refused[:_SHOWN]),
    )
