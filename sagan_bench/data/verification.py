"""Whether prepared images are still those that were written, by their SHA-256.

A small store is hashed when a process opens it. A large one is hashed beside the training, by a
thread that takes a tenth of a core: who trains asks :meth:`Verification.check` now and then, and
:meth:`Verification.finish` before the result counts.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from sagan_bench.core.errors import UserError, machine_error

DAMAGED = "damaged.txt"
"""A note in a store that was found to be damaged, so that it is built again."""

SMALL_BYTES = 2**29
"""Up to this size a store is hashed before it is used: 0.4 s, and 1.5 s on an old processor."""

_BLOCK = 2**20
_PAUSE = 9.0  # times what a block took
_logger = logging.getLogger(__name__)


class Verification:
    """The check of one store, made at most once a process.

    Args:
        place: the store's folder.
        splits: of each split, the SHA-256 that its pixels and labels must have, and the bytes of
            both.
    """

    def __init__(self, place: Path, splits: Mapping[str, tuple[str, int, int]]) -> None:
        self.place, self.splits = place, splits
        self.failure: UserError | None = None
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes to be read."""
        return sum(images + labels for _, images, labels in self.splits.values())

    def check(self) -> None:
        """Begin to hash, where that is not done yet; it takes no time.

        Raises:
            UserError: The store has been found to be damaged.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verify", daemon=True)
                self._thread.start()
        if self.failure:
            raise self.failure

    def finish(self) -> None:
        """Hash what is left, at full speed.

        Raises:
            UserError: The store is damaged.
        """
        self._hurry.set()
        self.check()
        assert self._thread
        self._thread.join()
        self.check()

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            changed = [name for name in self.splits if self._digest(name) != self.splits[name][0]]
        except OSError as error:
            self.failure = machine_error(error)
            return
        if not changed:
            took = time.perf_counter() - began
            _logger.debug("%s: %d bytes are verified, %.1f s", self.place, self.size_bytes, took)
            return
        said = f"the {' and '.join(changed)} images are not those that were prepared"
        self.failure = UserError(
            f"{self.place} is damaged: {said}. The same command prepares them anew, and begins "
            "again what was being trained on them; check the disk"
        )
        with suppress(OSError):  # a disk that cannot be written; it will be found again
            (self.place / DAMAGED).write_text(f"{said}\n")

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        _, images, labels = self.splits[name]
        worked = time.thread_time()
        for what, size in (("images", images), ("labels", labels)):
            for block in _blocks(self.place / f"{name}.{what}.npy", size):
                digest.update(block)  # without Python's lock
                self._hurry.wait(_PAUSE * (time.thread_time() - worked))
                worked = time.thread_time()
        return digest.hexdigest()


def _blocks(path: Path, size: int) -> Iterator[memoryview]:
    """Yield the last ``size`` bytes of a file, which are all but its header, in one buffer."""
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(-size, os.SEEK_END)
        while count := file.readinto(buffer):
            yield buffer[:count]


def verification_of(place: Path, splits: Mapping[str, tuple[str, int, int]]) -> Verification:
    """Return the one check of the store that is at ``place`` now."""
    files = [place / f"{name}.{what}.npy" for name in splits for what in ("images", "labels")]
    facts = (path.stat() for path in files)
    key = str(place), *((file.st_ino, file.st_size, file.st_mtime_ns) for file in facts)
    with _lock:
        return _known.setdefault((key, tuple(splits.items())), Verification(place, splits))


_known: dict[object, Verification] = {}
_lock = threading.Lock()
