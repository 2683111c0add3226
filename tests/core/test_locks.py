"""One process at a time, with the file system's locks and without."""

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout
from machines import local_locks, machine, silent, without_locks

from sagan_bench.core import locks


@pytest.fixture(
    params=[None, *sorted(locks.NO_LOCKS)], ids=lambda n: errno.errorcode.get(n, "locks")
)
def lock(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock's path, on a file system with locks, or that says in one of its ways it has none."""
    if request.param:
        without_locks(monkeypatch, request.param)
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
    without_locks(monkeypatch, errno.ENOLCK)
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


# --- Two machines that do not see each other's locks ----------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that another machine holds, on a file system that shows no lock of another machine."""
    local_locks(monkeypatch)
    with machine(monkeypatch, "n3"):
        locks.acquired(tmp_path / ".lock", 0)
    assert locks.machine() != "n3"
    return tmp_path / ".lock"


def test_what_lives_on_another_machine_is_held(shared: Path) -> None:
    silent(shared, locks.SECONDS_TO_LIVE - 20)
    assert locks.is_held(shared)
    with pytest.raises(Timeout):
        locks.acquired(shared, 0)
    said = locks.described(shared)
    assert said.startswith(f"process {os.getpid()} on n3, since 20")
    left = re.search(r"killed there, the same command takes over in (\d+) s\)$", said)
    assert left is not None
    assert 15 <= int(left[1]) <= 20


def test_what_gave_no_sign_of_life_is_taken_over(shared: Path) -> None:
    silent(shared, locks.SECONDS_TO_LIVE + 1)
    assert not locks.is_held(shared)
    held = locks.acquired(shared, 0)
    holder = locks.holder_of(shared)
    assert holder is not None
    assert holder.is_here
    held.release()
    assert not locks.note_of(shared).exists()


def test_that_a_holder_lives_is_waited_for(shared: Path) -> None:
    def end() -> None:
        time.sleep(0.1)
        locks.forget(shared)

    ending = threading.Thread(target=end)
    ending.start()
    locks.acquired(shared, 10).release()
    ending.join()


def test_a_clock_that_is_wrong_robs_nobody(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    with pytest.raises(Timeout):
        locks.acquired(shared, 0)


def test_names_of_machines_tell_nothing(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "n3")  # as in a container of another machine
    with pytest.raises(Timeout):
        locks.acquired(shared, 0)
    locks.acquired(tmp_path / "mine.lock", 0)
    monkeypatch.setattr(socket, "gethostname", lambda: "n4")  # as in a container of this one
    locks.acquired(tmp_path / "mine.lock", 0).release()  # whose locks say all


def test_what_a_machine_held_before_it_was_booted_is_free(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_booted", lambda: time.time() + 1)
    with pytest.raises(Timeout):
        locks.acquired(shared, 0)  # another machine's
    monkeypatch.setattr(socket, "gethostname", lambda: "n3")
    assert not locks.is_held(shared)
    locks.acquired(shared, 0).release()


def test_the_time_of_booting_is_past() -> None:
    assert time.time() - locks._booted() > 0


def test_where_there_are_no_locks_a_dead_machine_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch, errno.ENOSYS)
    lock = tmp_path / ".lock"
    with machine(monkeypatch, "n3"):
        locks.acquired(lock, 0)
    assert locks.is_held(lock)
    silent(lock, locks.SECONDS_TO_LIVE + 1)
    assert (tmp_path / ".lock.process").exists()
    assert not locks.is_held(lock)
    locks.acquired(lock, 0).release()


def test_a_holder_gives_signs_of_life_until_another_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local_locks(monkeypatch)
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_BEATS", 0.01)
    lock = tmp_path / ".lock"

    def is_fresh() -> bool:
        return time.time() - locks.note_of(lock).stat().st_mtime < 60

    def eventually(true: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 5
        while not true() and time.monotonic() < deadline:
            time.sleep(0.01)
        return true()

    held = locks.acquired(lock, 0)
    silent(lock, 200)
    assert eventually(is_fresh)
    with machine(monkeypatch, "n3"):
        monkeypatch.setattr(locks, "SECONDS_TO_LIVE", -1)  # however often it does so
        locks.acquired(lock, 0)
    assert eventually(lambda: "was taken over by process" in caplog.text)
    held.release()
    assert locks.note_of(lock).exists()  # which is another's


def test_that_a_holder_cannot_be_noted_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locks, "atomic_write", full)
    held = locks.acquired(tmp_path / ".lock", 0)
    assert locks.is_held(tmp_path / ".lock")
    assert locks.described(tmp_path / ".lock") == "another process"
    held.release()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '{"pid": 1}', '{"pid": {}, "host": 1, "machine": 1, "since": 1}',
     "[" * 100_000, '{"pid": 1e999, "host": "", "machine": "", "since": ""}'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_note_that_is_none_is_nobodys(tmp_path: Path, text: str) -> None:
    locks.note_of(tmp_path / ".lock").write_text(text)
    assert locks.described(tmp_path / ".lock") == "another process"
    assert not locks.is_held(tmp_path / ".lock")
    locks.acquired(tmp_path / ".lock", 0).release()


def test_a_lock_below_a_file_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not locks.is_held(tmp_path / "file" / ".lock")
