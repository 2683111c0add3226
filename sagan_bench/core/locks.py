"""One process at a time, also where the file system has no locks, or each machine its own.

Beside a lock is a note of who has it, whose time the holder renews.  Within a machine the lock says
whether it is held.  Some file systems show no lock of another machine: what its note says is
believed there, as long as it is renewed.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from sagan_bench.core.files import atomic_write, json_bytes

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system without locks says: NFS without its daemon, Lustre, some in user space."""
SECONDS_BETWEEN_BEATS = 30.0
SECONDS_TO_LIVE = 300.0
"""After which a holder on another machine that gave no sign of life is taken for dead."""
_TICK_SEC = 0.05

_log = logging.getLogger(__name__)


@cache
def machine() -> str:
    """Return what tells a running machine from others.

    Not its name, which containers of two machines may share, and those of the same may not.
    """
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def processes() -> str:
    """Return what tells the processes of a machine, or of a container of it, from others."""
    space = "all"
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{machine()} {space}"


# --- Who holds a lock ---------------------------------------------------------------------------


class Holder(NamedTuple):
    """Who has a lock, as its note says."""

    pid: int
    host: str
    machine: str
    since: str
    """UTC, as ``2026-01-02 03:04``."""

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, where the lock says more."""
        return self.machine == machine()


def note_of(lock: Path) -> Path:
    """Return the note beside a lock: ``.holder.json`` of ``.lock``."""
    return lock.with_name(f"{lock.name.removesuffix('lock')}holder.json")


def holder_of(lock: Path) -> Holder | None:
    """Return who has a lock, or had it when it was killed; None where that is not known."""
    try:
        said: dict[str, Any] = json.loads(note_of(lock).read_bytes())
        return Holder(int(said["pid"]), *(str(said[key]) for key in ("host", "machine", "since")))
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def described(lock: Path) -> str:
    """Return in words who has a lock, and when one that may be dead is taken for dead."""
    holder = holder_of(lock)
    if holder is None:
        return "another process"
    who = f"process {holder.pid} on {holder.host}, since {holder.since} UTC"
    if holder.is_here:
        return who
    left = round(max(1.0, _last_sign(lock) + SECONDS_TO_LIVE - time.time()))
    return f"{who} (if it was killed there, the same command takes over in {left} s)"


def forget(lock: Path) -> None:
    """Believe what is beside a lock no more: whoever wrote it has let go of it, or is gone."""
    for file in (note_of(lock), _stand_in(lock)):
        file.unlink(missing_ok=True)


def _last_sign(lock: Path) -> float:
    """Return when the holder of a lock gave its last sign of life, in seconds since 1970."""
    try:
        return note_of(lock).stat().st_mtime
    except OSError:
        return float("-inf")


def _lives_elsewhere(lock: Path, holder: Holder | None, now: Callable[[Path], float]) -> bool:
    """Return whether a holder is on another machine, and is not taken for dead."""
    if holder is None or holder.is_here:
        return False
    sign = _last_sign(lock)
    is_from_before_boot = holder.host == socket.gethostname() and sign < _booted()
    return now(lock) - sign <= SECONDS_TO_LIVE and not is_from_before_boot


def _booted() -> float:
    """Return when this machine began to run, in seconds since 1970."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


# --- Holding it ---------------------------------------------------------------------------------


class Held:
    """A lock that this process has, until it is let go, or the process ends.

    That its holder cannot be noted, on a full disk say, fails nothing.
    """

    def __init__(self, lock: BaseFileLock, path: Path) -> None:
        self._lock, self._path, self._over = lock, path, threading.Event()
        now = datetime.now(UTC)
        self._own = Holder(os.getpid(), socket.gethostname(), machine(), f"{now:%Y-%m-%d %H:%M}")
        with suppress(OSError):
            atomic_write(note_of(path), json_bytes(self._own._asdict()))
        threading.Thread(target=self._live, name=f"holds {path}", daemon=True).start()

    def _live(self) -> None:
        """Give signs of life, until another has taken over from this process, asleep meanwhile."""
        while not self._over.wait(SECONDS_BETWEEN_BEATS):
            holder = holder_of(self._path)
            if holder not in (self._own, None):
                _log.warning("%s was taken over by %s", self._path.parent, described(self._path))
                return
            with suppress(OSError):
                os.utime(note_of(self._path))

    def release(self) -> None:
        """Let it go."""
        self._over.set()
        with suppress(OSError):
            if holder_of(self._path) == self._own:
                note_of(self._path).unlink()
        self._lock.release()


def acquired(path: Path, timeout_sec: float) -> Held:
    """Return the lock at ``path``, taken by this process; it is let go when the process ends.

    Where the file system has no locks, a file beside it that names the process and its machine
    takes its place.  One that a killed process left is removed on that machine, and on others once
    its holder is taken for dead.

    Raises:
        Timeout: Another process has it.
        OSError: The file cannot be made.
    """
    deadline = time.monotonic() + timeout_sec
    while _lives_elsewhere(path, holder := holder_of(path), _time_there):
        if time.monotonic() >= deadline:
            raise Timeout(str(path))
        time.sleep(_TICK_SEC)
    if holder and not holder.is_here:
        forget(path)
    return Held(_locked(path, max(0.0, deadline - time.monotonic())), path)


def _time_there(path: Path) -> float:
    """Return the time of the disk that a lock is on, by which notes are dated; else ours."""
    with suppress(OSError):
        os.utime(path)
        return path.stat().st_mtime
    return time.time()


def _locked(path: Path, timeout_sec: float) -> BaseFileLock:
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
    held = acquired(path, timeout_sec)
    try:
        yield
    finally:
        held.release()


def _stand_in(path: Path) -> Path:
    return path.with_name(f"{path.name}.process")


# --- Seen from outside --------------------------------------------------------------------------


def is_held(path: Path) -> bool:
    """Return whether a process, this one included, has the lock at ``path``."""
    holder = holder_of(path)
    if _lives_elsewhere(path, holder, lambda _: time.time()):
        return True
    if _stand_in(path).exists():
        return (holder is None or holder.is_here) and _stand_in_is_held(path)
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
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
