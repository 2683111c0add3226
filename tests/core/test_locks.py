"""One process at a time, with the file system's locks and without."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from sagan_bench.core import locks


@pytest.fixture(
    params=[None, *sorted(locks.NO_LOCKS)], ids=lambda n: errno.errorcode.get(n, "locks")
)
def lock(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock's path, on a file system with locks, or that says in one of its ways it has none."""
    if request.param:

        def without(*_: object) -> None:
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", without)
    (tmp_path / ".lock").touch()  # as an earlier process leaves it
    return tmp_path / ".lock"


def test_one_holds_it_and_the_next_may(lock: Path) -> None:
    assert not locks.is_held(lock)
    held = locks.acquired(lock, 0)
    assert locks.is_held(lock)
    with pytest.raises(Timeout):
        locks.acquired(lock, 0)
    held.release()
    assert not locks.is_held(lock)
    locks.acquired(lock, 0).release()


def test_it_is_said_what_protects_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    locks.acquired(tmp_path / ".lock", 0).release()
    assert f"{tmp_path}: the file system has no locks" in caplog.text
    assert "the file .lock.process protects it instead" in caplog.text


def test_what_a_killed_process_left_in_their_place_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, os, fcntl, errno\nfrom pathlib import Path\n"
        "from sagan_bench.core import locks\n"
        "def without(*_): raise OSError(errno.ENOSYS, 'no')\nfcntl.flock = without\n"
        "held = locks.acquired(Path(sys.argv[1]), 0)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".lock")], stderr=subprocess.DEVNULL)
    assert (tmp_path / ".lock.process").exists()
    assert not locks.is_held(tmp_path / ".lock")
    locks.acquired(tmp_path / ".lock", 0).release()


def test_another_error_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        locks.acquired(tmp_path / "file" / ".lock", 0)
