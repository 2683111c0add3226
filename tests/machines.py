"""Machines that do not see each other's locks, or that have none, pretended."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sagan_bench.core import locks


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the file system have no locks, and say so by an error."""

    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)


def local_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system show no lock of another machine; nor, here, of this one."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


@contextmanager
def machine(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """What is done within is done on another machine."""
    with monkeypatch.context() as patch:
        patch.setattr(locks, "machine", lambda: name)
        patch.setattr(socket, "gethostname", lambda: name)
        yield


def silent(lock: Path, seconds: float) -> None:
    """Let the holder of a lock have given its last sign of life so long ago."""
    then = time.time() - seconds
    os.utime(locks.note_of(lock), (then, then))
