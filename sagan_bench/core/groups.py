"""A program in a process group of its own, which nothing of it outlives."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.locks import NO_LOCKS, processes

GRACE_SEC = 20.0
"""From the request to stop to the kill; less than an engine waits for its workers."""
_TICK_SEC = 0.1


class ProcessGroup:
    """A program and all that it starts: a context manager, at whose end they are gone.

    What was left of it by a kill of this process is ended before it is begun again.

    Args:
        words: of its command.
        lock: a file that the program holds open, locked, so that what is left of it is known.
        log: to which it prints.
        environment: of it.

    Raises:
        UserError: On entering, if it cannot be run.
        MachineError: Likewise, if what an earlier process left cannot be ended.
    """

    def __init__(
        self, words: Sequence[str], *, lock: Path, log: BinaryIO, environment: Mapping[str, str]
    ) -> None:
        self.words, self.lock, self.log, self.environment = words, lock, log, environment
        self.kill_at: float | None = None

    def __enter__(self) -> Self:
        handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _take(handle, self.lock)
            os.truncate(handle, 0)  # what it says is of the one before
            with _stoppable():
                self.process = subprocess.Popen(
                    self.words,
                    stdin=subprocess.DEVNULL,
                    stdout=self.log,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    pass_fds=(handle,),
                    start_new_session=True,
                )
            holder = {"group": self.process.pid, "host": socket.gethostname(), "of": processes()}
            self.lock.write_text(json.dumps(holder))
        except OSError as error:
            if error.filename != self.words[0]:
                raise
            raise UserError(f"cannot run {self.words[0]}: {error.strerror}") from error
        finally:
            os.close(handle)
        return self

    def __exit__(self, *_: object) -> None:
        _signal(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int | None:
        """Return the exit code, negative of a signal; None if it still runs after a moment."""
        if self.kill_at and time.monotonic() > self.kill_at:
            _signal(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(_TICK_SEC)
        return None

    def stop(self, number: signal.Signals) -> None:
        """Ask all of it to stop; what is still there after `GRACE_SEC` is killed."""
        _signal(self.process.pid, number)
        self.kill_at = time.monotonic() + GRACE_SEC


def _signal(group: int, number: signal.Signals) -> bool:
    """Send a signal to a group; return whether there is such a group of this user."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a dead one
        return False
    return True


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let a program that is started within be stopped by signals that this process ignores."""
    ignored = []
    if threading.current_thread() is threading.main_thread():  # which alone may set this
        numbers = signal.SIGINT, signal.SIGTERM
        ignored = [n for n in numbers if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)  # a new program starts without handlers
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _take(handle: int, lock: Path) -> None:
    """Lock a file for the program to come; end the one before, if that holds it still."""
    if _is_free(handle):
        return
    group, host, of = _holder(lock)
    if group and of == processes():
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal(group, number)
            deadline = time.monotonic() + GRACE_SEC
            while time.monotonic() < deadline:
                if _is_free(handle):
                    return
                time.sleep(_TICK_SEC)
    raise MachineError(
        f"a program of an earlier attempt still runs on {host}, process group {group}; {lock}; "
        "end it: the same command then goes on"
    )


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _holder(lock: Path) -> tuple[int, str, str]:
    """Return the group of the program that holds a lock, and where that is; 0 if not known."""
    try:
        holder = json.loads(lock.read_bytes())
        return int(holder["group"]), str(holder["host"]), str(holder.get("of"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0, "a machine", ""
