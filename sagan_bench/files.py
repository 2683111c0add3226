"""Files that are whole or not there: atomic writes, and what a power cut may not undo."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name ``path`` when the block ends, and never before.

    A reader sees the old content or the whole new one, through a kill or a power cut too. An
    exception in the block leaves ``path`` as it was.
    """
    # Not tempfile: it makes files that only their owner may read, whatever the umask says.
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with synced_file(temp) as file:
            yield file
        os.replace(temp, path)
        sync_folder(path.parent)
    finally:
        temp.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path) as file:
        file.write(data)


def sweep(folder: Path) -> None:
    """Remove at any depth what killed processes left half-written; nobody else may be writing."""
    for temp in folder.rglob(".*.tmp"):
        temp.unlink(missing_ok=True)


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, which is on the disk when the block ends.

    Raises:
        FileExistsError: If ``path`` exists.
    """
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk: after a rename, so that it outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(value: Any) -> bytes:
    """Return indented JSON; raises ValueError for a NaN or infinity."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
