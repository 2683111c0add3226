"""One process at a time, also where the file system has no locks."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system without locks says: NFS without its daemon, Lustre, some in user space."""

_log = logging.getLogger(__name__)


def acquired(path: Path, timeout_sec: float) -> BaseFileLock:
    """Return the lock at ``path``, taken by this process; it is let go when the process ends.

    Where the file system has no locks, a file beside it that names the process and its machine
    takes its place.  One that a killed process left is removed on that machine alone.

    Raises:
        Timeout: Another process has it.
        OSError: The file cannot be made.
    """
    try:
        return FileLock(path, fallback_to_soft=False).acquire(timeout_sec).lock
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        _log.warning(
            "%s: the file system has no locks (%s); the file %s protects it instead",
            path.parent,
            error.strerror,
            _stand_in(path).name,
        )
    return SoftFileLock(_stand_in(path)).acquire(timeout_sec).lock


@contextmanager
def holding(path: Path, timeout_sec: float = 0) -> Iterator[None]:
    """Hold the lock at ``path`` within.  Raises as `acquired`."""
    lock = acquired(path, timeout_sec)
    try:
        yield
    finally:
        lock.release()


def _stand_in(path: Path) -> Path:
    return path.with_name(f"{path.name}.process")


def is_held(path: Path) -> bool:
    """Return whether a process, this one included, has the lock at ``path``."""
    if _stand_in(path).exists():
        return _stand_in_is_held(path)
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two probes at a time do not take each other for a holder.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    finally:
        os.close(handle)
    return False


def _stand_in_is_held(path: Path) -> bool:
    try:
        SoftFileLock(_stand_in(path)).acquire(0).lock.release()
    except Timeout:
        return True
    except PermissionError:  # it may be read only
        return True
    return False
