import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_records import contents

from sagan_bench.core import files


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    files.atomic_write(file, b"old")
    files.atomic_write(file, b"new")
    assert contents(tmp_path) == {"a.json": b"new"}


def test_a_failed_atomic_write_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    files.atomic_write(file, b"old")

    def write_half() -> None:
        with files.atomic_file(file) as out:
            out.write(b"ne")
            out.flush()
            assert len(list(tmp_path.iterdir())) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert contents(tmp_path) == {"a.json": b"old"}


def test_atomic_write_heeds_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_sweep_takes_half_written_files_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    kept = ("a.json", ".hidden", "b.tmp")
    for name in (*kept, ".a.json.0a1b.tmp", "inner/deeper/.c.0a1b.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert sorted(contents(tmp_path)) == sorted(kept)


@pytest.mark.parametrize("write", [files.synced_file, files.atomic_file])
def test_what_was_written_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any]
) -> None:
    synced: list[tuple[str, int]] = []

    def sync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, os.fstat(handle).st_size if kind == "file" else 0))
        assert (tmp_path / "a").exists() == (kind == "folder" or write is files.synced_file)

    monkeypatch.setattr(os, "fsync", sync)
    with write(tmp_path / "a") as file:
        file.write(b"four")
    assert synced == [("file", 4), ("folder", 0)][: 1 if write is files.synced_file else 2]


def test_a_synced_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError), files.synced_file(tmp_path / "a"):
        pass
    assert contents(tmp_path) == {"a": b"old"}


def test_json_without_nan() -> None:
    assert files.json_bytes({"a": [1, None]}) == b'{\n  "a": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.json_bytes({"a": float("inf")})


def dead() -> int:
    """Return the number of a process that is no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize("host", ["", f"{files._HOST}-"])
def test_a_file_written_again_takes_what_a_kill_left_of_it(tmp_path: Path, host: str) -> None:
    mine, other = (f".{name}.{host}{dead()}-0a1b2c3d.tmp" for name in ("a.json", "b.json"))
    alive = f".a.json.{host}{os.getpid()}-0a1b2c3d.tmp"
    for name in (mine, other, alive):
        (tmp_path / name).touch()
    files.atomic_write(tmp_path / "a.json", b"")
    assert contents(tmp_path).keys() == {"a.json", other, alive}
    files.sweep_dead(tmp_path)
    assert contents(tmp_path).keys() == {"a.json", alive}


def test_what_another_machine_may_be_writing_is_left_for_a_day(tmp_path: Path) -> None:
    new, old = (tmp_path / f".a.{host}-{dead()}-0a1b2c3d.tmp" for host in ("00000000", "00000001"))
    for file in (new, old):
        file.touch()
    os.utime(old, (0, 0))
    files.sweep_dead(tmp_path)
    assert contents(tmp_path).keys() == {new.name}
