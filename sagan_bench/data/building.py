"""Building a store: decode with all cores, append, and go on after a kill where it was.

The files of a store grow in a folder beside its place, under a lock, and the folder is renamed into
place when complete. What is on the disk for certain is noted in ``progress.json`` every few
seconds; a build that was broken off is cut back to that, its content hashed again, and continued,
so that it ends byte-equal to one that was not.
"""

import errno
import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

from sagan_bench.core import extensions, files
from sagan_bench.core.cpu import cores
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, sync_folder
from sagan_bench.core.locks import Held, acquired
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.checks import (
    SHOWN,
    named,
    no_cache,
    refuse_little_space,
    refuse_unreadable,
    warn,
)
from sagan_bench.data.decoding import RESIZE, Chunk
from sagan_bench.data.growing import Changed, Done, Growing, Noted
from sagan_bench.data.listing import DataSpec, Listing, Task
from sagan_bench.data.sources import open_source
from sagan_bench.data.sources._base import Source
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
from sagan_bench.data.workers import decoding_processes, start_worker

PROGRESS = "progress.json"

_TASKS_WORTH_PROCESSES = 4  # below that a process takes longer to start than to decode
_SECONDS_BETWEEN_CHECKPOINTS = 2.0
_logger = logging.getLogger(__name__)


def prepare(
    spec: DataSpec,
    cache: Path | None = None,
    progress: OnProgress = unwatched,
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
                    _build(place, source, progress, workers or cores(), skip_bad)
                store = _whole(place, skip_bad)
    if store is None:
        raise UserError(f"{place} was damaged right after it was written; check that disk")
    # What is passed over may have changed without a change of the images.
    store = replace(store, manifest=store.manifest.model_copy(update={"remarks": source.remarks}))
    warn(store.manifest)
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


@contextmanager
def _lock(place: Path, progress: OnProgress) -> Iterator[None]:
    """Hold the lock of ``place``: of two processes that prepare it, the second waits here.

    ``progress`` is told of no progress meanwhile, so that it can end the waiting by raising.
    """
    lock: Held | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        while lock is None:
            try:
                lock = acquired(lock_of(place), 0.5)
            except Timeout:
                _logger.info("waiting for another process that is preparing %s", place.name)
                progress(0, 1)
    except OSError as error:
        raise no_cache(place, files.obstacle(place.parent) or error) from error
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


def _build(place: Path, source: Source, progress: OnProgress, workers: int, skip_bad: bool) -> None:
    if workers > 1 and source.geometry:
        decoding_processes()  # its imports take as long as the listing does
    folder = place.with_name(place.name + BUILDING)
    build = _Build(folder, source, source.listing(), progress, workers, skip_bad)
    try:
        manifest = build.run()
    except Changed:
        _logger.warning("%s has changed on the disk and is begun anew", folder)
        shutil.rmtree(folder)
        manifest = build.run()
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
    (folder / PROGRESS).unlink()
    files.sweep(folder)  # of killed attempts
    sync_folder(folder)
    shutil.rmtree(place, ignore_errors=True)  # a damaged store
    folder.rename(place)
    sync_folder(place.parent)


@dataclass(frozen=True)
class _Build:
    """One attempt at a store in its folder, from where an earlier one has left it."""

    folder: Path
    source: Source
    listing: Listing
    progress: OnProgress
    workers: int
    skip_bad: bool

    @property
    def images(self) -> int:
        """The images there are to be."""
        return sum(part.images for part in self.listing.parts.values())

    def run(self) -> Manifest:
        """Write the arrays, and return what they are.

        Raises:
            Changed: What an earlier attempt has left is not what it wrote.
        """
        noted = self._earlier()
        left = self.images - noted.images
        refuse_little_space(self.folder.parent, left, self.source.spec.image_size)
        if not any(done.tasks for done in noted.done.values()):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            (self.folder / SOURCE).write_text(f"{self.source.spec.source}\n")
        side = self.source.spec.image_size
        with ExitStack() as stack:
            splits = {
                name: stack.enter_context(closing(Growing(self.folder, name, side, done)))
                for name, done in noted.done.items()
            }
            self._fill(splits, noted)
            self._refuse_bad(noted)
            for name, part in self.listing.parts.items():
                if noted.done[name].images + len(noted.done[name].refused) != part.images:
                    raise Changed  # a damaged note
            classes = len(self.listing.classes)
            facts = {name: growing.finish(classes) for name, growing in splits.items()}
        return self._manifest(noted, facts)

    def _earlier(self) -> Noted:
        """Return how far a build that was broken off is; from nothing if it cannot be continued.

        One that met bad pictures is begun anew unless they may be left out: they may be mended.
        """
        parts = self.listing.parts
        plan = {name: (part.images, len(part.tasks)) for name, part in parts.items()}
        new = Noted(listing=plan, done={name: Done() for name in plan})
        try:
            noted = Noted.model_validate_json((self.folder / PROGRESS).read_bytes())
        except (OSError, ValueError):
            return new
        fits = noted.listing == plan and noted.done.keys() == plan.keys()
        return noted if fits and (self.skip_bad or not noted.refused) else new

    def _fill(self, splits: dict[str, Growing], noted: Noted) -> None:
        """Run the tasks that are left and append what they yield."""
        parts = self.listing.parts
        tasks = {name: parts[name].tasks[done.tasks :] for name, done in noted.done.items()}
        due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS
        with _pool(self.source, sum(map(len, tasks.values())), self.workers) as pool:
            for name, growing in splits.items():
                for chunk in _in_order(pool, tasks[name], 2 * self.workers):
                    growing.append(chunk)
                    if time.monotonic() >= due:
                        self._checkpoint(splits, noted)
                        due = time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS
                    self.progress(noted.images + len(noted.refused), self.images)
        self._checkpoint(splits, noted)

    def _checkpoint(self, splits: dict[str, Growing], noted: Noted) -> None:
        for growing in splits.values():
            growing.sync()
        atomic_write(self.folder / PROGRESS, noted.model_dump_json().encode())

    def _refuse_bad(self, noted: Noted) -> None:
        """Raise if pictures cannot be read and may not be left out, or none is left of a split."""
        refused = noted.refused
        if not self.skip_bad:
            refuse_unreadable(refused, len(refused), noted.images)
        if empty := [name for name, done in noted.done.items() if not done.images]:
            names = named(refused, len(refused))
            raise UserError(f"no picture of the {empty[0]} split can be read{names}")

    def _manifest(self, noted: Noted, facts: dict[str, SplitFacts]) -> Manifest:
        source, geometry, train = self.source, self.source.geometry, noted.done["train"]
        return Manifest(
            kind=source.name,
            selection=source.selection,
            image_size=source.spec.image_size,
            crop=geometry and geometry.crop,
            fit=geometry and geometry.fit,
            resize=geometry and RESIZE,
            split_rule=self.listing.split_rule,
            classes=self.listing.classes,
            train=facts["train"],
            test=facts.get("test"),
            definition=source.definition,
            pixel_range=(train.low, train.high),
            enlarged=sum(done.enlarged for done in noted.done.values()),
            refused=len(noted.refused),
            refused_first=tuple(noted.refused[:SHOWN]),
        )


@contextmanager
def _pool(source: Source, tasks: int, workers: int) -> Iterator[Executor | None]:
    """Workers for the tasks of ``source``; None where this thread alone is as quick."""
    # Pictures hold Python's lock while they are decoded; a file of one's own is known here alone.
    own = extensions.that_has("SOURCES", source.name)
    processes = source.geometry is not None and own is None
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
