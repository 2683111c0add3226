"""Files that are whole or not there: atomic writes, and what a power cut may not undo."""

import errno
import json
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_TEMP = re.compile(r"\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d+)-[0-9a-f]{8}\.tmp$")
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_LONG_SEC = 24 * 3600
"""After which a half-written file of another machine is one that nobody writes any more."""


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name ``path`` when the block ends, and never before.

    A reader sees the old content or the whole new one, through a kill or a power cut too. An
    exception in the block leaves ``path`` as it was. What killed processes left half-written of
    the same file is removed.
    """
    sweep_dead(path.parent, path.name)
    # Not tempfile: it makes files that only their owner may read, whatever the umask says.
    own = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    temp = path.with_name(f".{path.name}.{own}.tmp")
    try:
        with synced_file(temp) as file:
            yield file
        os.replace(temp, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename == str(temp):  # a name that tells nobody anything
            error.filename = str(path)
        raise
    finally:
        temp.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path) as file:
        file.write(data)


def sweep(folder: Path) -> None:
    """Remove at any depth what killed processes left half-written; nobody else may be writing."""
    for temp in folder.rglob(".*.tmp"):
        if temp.is_file():
            temp.unlink(missing_ok=True)


def sweep_dead(folder: Path, name: str = "") -> None:
    """Remove from a folder, not those below, what processes left half-written that are no more.

    Others may be writing there, on this machine or another.

    Args:
        folder: where.
        name: of this file only.
    """
    begin = f".{name}." if name else "."
    for entry in _entries(folder):
        if entry.startswith(begin) and (named := _TEMP.search(entry)):
            temp = folder / entry
            if not _may_be_written(temp, named) and temp.is_file():
                temp.unlink(missing_ok=True)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # whoever writes there says it better
        return []


def _may_be_written(temp: Path, named: re.Match[str]) -> bool:
    if named["host"] in (None, _HOST):
        return _is_alive(int(named["pid"]))
    try:
        return time.time() - temp.stat().st_mtime < _LONG_SEC
    except OSError:
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, which is on the disk when the block ends.

    Raises:
        FileExistsError: If ``path`` exists.
    """
    with naming(path), path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of an error of the operating system at which file it was, where it does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def obstacle(folder: Path) -> OSError | None:
    """Return what keeps a folder from being made and written to, as far as a look can tell."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    number = 0
    if not there.is_dir():
        number = errno.ENOTDIR
    elif _is_of_the_kernel(there):  # which tells root otherwise
        number = errno.EPERM
    elif not os.access(there, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
    elif any(len(os.fsencode(part)) > os.pathconf(there, "PC_NAME_MAX") for part in folder.parts):
        number, there = errno.ENAMETOOLONG, folder
    return OSError(number, os.strerror(number), str(there)) if number else None


def _is_of_the_kernel(folder: Path) -> bool:
    mounts = [mount for mount in ("/proc", "/sys") if os.path.ismount(mount)]
    return folder.stat().st_dev in [Path(mount).stat().st_dev for mount in mounts]


def sync(path: Path) -> None:
    """Put a file's content on the disk, if there is such a file."""
    with suppress(FileNotFoundError), naming(path), path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk: after a rename, so that it outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(value: Any) -> bytes:
    """Return indented JSON; raises ValueError for a NaN or infinity."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
