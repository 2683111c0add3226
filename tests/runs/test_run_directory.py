import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from example_records import CONFIG, contents, no_constant, record, stored, unsealed
from machines import local_locks, machine, silent, without_locks

from sagan_bench.core import locks
from sagan_bench.core.errors import UserError
from sagan_bench.runs import finding, run_directory
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.keeping import tidy
from sagan_bench.runs.records import Status, read
from sagan_bench.runs.rows import METRICS, read_rows, read_sealed
from sagan_bench.runs.run_directory import (
    RunDirectory,
    abandoned,
    is_locked,
    read_all,
    read_now,
)

HOLD = """
import sys, time
from pathlib import Path
from sagan_bench.runs.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1]), digest="d1", config={}):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def directory(path: Path, **changes: Any) -> RunDirectory:
    return RunDirectory(path, **{"digest": "d1", "config": CONFIG, **changes})


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    run = stored(tmp_path / "a", status="running")
    assert read_now(run).status == "interrupted"
    with held_elsewhere(run) as process:
        assert is_locked(run)
        assert read_now(run).status == "running"
        with pytest.raises(UserError, match=f"process {process.pid} on .*wait"), directory(run):
            pass
        with pytest.raises(UserError, match="in use"), directory(run, fresh=True):
            pass
        assert run.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_locked(run)
    assert read_now(run).status == "interrupted"
    with directory(run):
        assert is_locked(run)


def test_a_second_opening_in_one_process_is_refused(tmp_path: Path) -> None:
    with (
        directory(tmp_path / "a"),
        pytest.raises(UserError, match=f"process {os.getpid()} "),
        directory(tmp_path / "a"),
    ):
        pass
    with directory(tmp_path / "a"):
        pass


def test_a_holder_that_cannot_be_named_is_still_refused(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        (run.path / ".holder.json").write_text("{")
        with pytest.raises(UserError, match="in use by another process"), directory(run.path):
            pass


def test_the_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), directory(tmp_path / "a"):
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "a")
    assert not (tmp_path / "a" / ".holder.json").exists()


def test_probes_neither_deceive_each_other_nor_turn_a_run_away(tmp_path: Path) -> None:
    with directory(tmp_path / "a"):
        pass
    with (tmp_path / "a" / ".lock").open("rb") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)  # as is_locked does
        assert not is_locked(tmp_path / "a")
        release = threading.Timer(0.1, fcntl.flock, (probe, fcntl.LOCK_UN))
        release.start()
        with directory(tmp_path / "a"):
            assert is_locked(tmp_path / "a")
        release.join()


@pytest.mark.parametrize("is_known_to_be_gone", [False, True])
def test_a_run_on_another_machine_runs_as_long_as_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known_to_be_gone: bool
) -> None:
    local_locks(monkeypatch)
    with machine(monkeypatch, "n3"):
        theirs = directory(tmp_path / "a").__enter__()
        theirs.write(record(run="a", status="running"))
    run, lock = theirs.path, theirs.path / ".lock"
    assert read_now(run).status == "running"
    refused = r"in use by process \d+ on n3, since .* takes over in 300 s\)"
    with pytest.raises(UserError, match=refused):
        directory(run).look()
    with pytest.raises(UserError, match=refused), directory(run):
        pass
    tidy(tmp_path)
    assert locks.note_of(lock).exists()
    if is_known_to_be_gone:  # as its cluster says
        abandoned(run)
    else:
        silent(lock, locks.SECONDS_TO_LIVE + 1)
    assert read_now(run).status == "interrupted"
    assert read_now(run).reason == "the process was killed"
    with directory(run):
        assert locks.described(lock).startswith(
            f"process {os.getpid()} on {socket.gethostname()}, "
        )


@pytest.mark.parametrize("number", sorted(locks.NO_LOCKS), ids=errno.errorcode.get)
def test_without_locks_a_run_is_held_and_let_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without_locks(monkeypatch, number)
    with directory(tmp_path / "a") as run:
        run.write(record(run="a", status="running"))
        assert read_now(run.path).status == "running"
        with (
            pytest.raises(UserError, match=f"in use by process {os.getpid()} "),
            directory(run.path),
        ):
            pass
    assert read_now(run.path).status == "interrupted"
    assert not is_locked(run.path)
    with directory(run.path, fresh=True):
        pass
    assert sorted(path.name for path in (tmp_path / "a.old-1").glob(".*")) == [".lock"]


def test_a_file_in_the_place_of_a_run_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert not is_locked(tmp_path / "a")


def test_a_log_alone_is_no_run_of_somebody(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("--- attempt")
    with directory(tmp_path) as run:
        run.write(record())
    assert read(tmp_path).run == "a-s0-d1"


def test_probing_leaves_no_trace(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_between_the_two_looks_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored(tmp_path / "a", status="running")

    def ends(path: Path) -> bool:
        (path / "record.json").write_bytes(record().to_json())
        return False

    monkeypatch.setattr(run_directory, "is_locked", ends)
    assert read_now(run).status == "finished"


def test_another_digest_is_refused_key_by_key(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.log({"step": 1})
        run.write(record())
    before = contents(tmp_path)
    asked = {"training": {"lr_g": 0.0004, "steps": 100}, "model": {"attention": {}}, "new": "x"}
    with pytest.raises(UserError) as caught, directory(run.path, digest="d2", config=asked):
        pass
    assert contents(tmp_path) == before
    assert not is_locked(run.path)
    for part in (
        "training.lr_g: 0.0001 here, 0.0004 asked",
        "model.attention.generator: [8, 16] here, absent asked",
        'new: absent here, "x" asked',
        str(run.path),
        "--no-resume",
    ):
        assert part in str(caught.value)
    assert "steps" not in str(caught.value)


def refusal(here: dict[str, Any], asked: dict[str, Any], path: Path) -> str:
    with directory(path, config=here):
        pass
    with (
        pytest.raises(UserError) as caught,
        directory(path, digest="d2", config=asked),
    ):
        pass
    return str(caught.value)


def test_what_the_digest_does_not_cover_is_not_told_as_a_difference(tmp_path: Path) -> None:
    here = {"seed": 0, "run": {"steps": 100, "device": "cpu"}, "runs": 1}
    asked = {"seed": 1, "run": {"steps": 200, "threads": 2}, "runs": 2}
    said = refusal(here, asked, tmp_path / "a")
    assert "another run is here: seed: 0 here, 1 asked, runs: 1 here, 2 asked; " in said


def test_where_nothing_else_differs_it_is_told(tmp_path: Path) -> None:
    here, asked = ({"seed": 0, "run": {"steps": steps}} for steps in (100, 200))
    assert "is here: run.steps: 100 here, 200 asked; " in refusal(here, asked, tmp_path / "a")


def test_a_run_begun_while_the_lock_was_awaited_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquired = run_directory.acquired

    def too_late(path: Path) -> Any:
        (path / "config.json").write_text('{"digest": "d2", "config": {}}')
        return acquired(path)

    monkeypatch.setattr(run_directory, "acquired", too_late)
    with pytest.raises(UserError, match="another run is here"), directory(tmp_path / "a"):
        pass
    assert not is_locked(tmp_path / "a")


def test_a_record_alone_also_tells_the_digest(tmp_path: Path) -> None:
    run = stored(tmp_path / "a")
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match="read the same, but a different version"),
        directory(run, digest="d2"),
    ):
        pass
    assert contents(tmp_path) == before
    with directory(run):
        assert unsealed(run / "config.json") == {"digest": "d1", "config": CONFIG}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("thesis.txt", "precious", "neither config.json nor record.json"),
        ("config.json", "{", "damaged config.json"),
        ("config.json", '{"a": 1}', "digest and config expected"),
    ],
)
def test_files_that_no_run_left_are_refused(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says), directory(tmp_path):
        pass
    assert contents(tmp_path) == {name: content.encode()}


def test_fresh_moves_the_old_run_to_the_smallest_free_number(tmp_path: Path) -> None:
    path = tmp_path / "a"
    (tmp_path / "a.old-2").mkdir()
    for digest in ("d1", "d2", "d3"):  # of another digest, too
        with directory(path, digest=digest, fresh=True) as run:
            assert run.rows() == []
            run.log({"step": int(digest[1])})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["a", "a.old-1", "a.old-2", "a.old-3"]
    first = json.loads((tmp_path / "a.old-1" / "metrics.jsonl").read_bytes())
    second = json.loads((tmp_path / "a.old-3" / "metrics.jsonl").read_bytes())
    assert (first, second) == ({"step": 1}, {"step": 2})
    assert not is_locked(tmp_path / "a.old-1")


def test_opening_again_keeps_what_is_there_and_sweeps_leftovers(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.write(record())
        run.log({"step": 1})
        kept = contents(run.path)
        for leftover in (".record.json.0a1b.tmp", "checkpoints/.step-00000001.ckpt.0a1b.tmp"):
            (run.path / leftover).write_bytes(b"half")
    with directory(run.path) as again:
        assert contents(again.path) == kept
        assert read(again.path) == record()


def test_a_start_that_was_killed_early_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / ".config.json.0a1b.tmp").write_bytes(b"{")
    (tmp_path / ".lock").touch()
    with directory(tmp_path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "samples",
    ]


# --- Metrics ------------------------------------------------------------------------------------


def test_metrics_are_appended_without_nan(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.log({"step": 1, "loss_d": 0.5, "gamma": {"up16": float("inf")}})
        run.log({"step": 2, "loss_d": float("nan")})
        assert run.rows() == [
            {"step": 1, "loss_d": 0.5, "gamma": {"up16": None}},
            {"step": 2, "loss_d": None},
        ]
        for line in run.metrics_file.read_text().splitlines():
            json.loads(line, parse_constant=no_constant)


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo', '{"step": 4}', "\0\0\0"])
def test_cut_drops_later_rows_and_a_torn_last_line(tmp_path: Path, torn: str) -> None:
    with directory(tmp_path / "a") as run:
        for step in (1, 2, 3):
            run.log({"step": step})
        with run.metrics_file.open("a") as file:
            file.write(torn)
        assert [row["step"] for row in run.rows()] == [1, 2, 3]
        run.cut(2, {})
        run.log({"step": 3})
        assert run.metrics_file.read_text() == '{"step":1}\n{"step":2}\n{"step":3}\n'


def test_cut_before_the_first_row(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.cut(0, {})
        assert run.rows() == []


def test_a_damaged_line_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with directory(tmp_path / "a") as run:
        run.metrics_file.write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
        with caplog.at_level(logging.WARNING):
            assert [row["step"] for row in run.rows()] == [1, 3]
    assert "line 2 is damaged" in caplog.text


# --- Finding runs -------------------------------------------------------------------------------


def test_find_runs_is_sorted_nested_and_leaves_out_what_was_moved_aside(tmp_path: Path) -> None:
    runs = [stored(tmp_path / name) for name in ("b", "a", "study/c", "a.old-1", ".hidden/d")]
    stored(runs[0] / "samples" / "inner")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "study/c"]
    assert find_runs(runs[0]) == [runs[0]]
    assert find_runs(tmp_path / "none") == []


def test_linked_runs_are_found_once_and_loops_end(tmp_path: Path) -> None:
    runs, scratch = tmp_path / "runs", tmp_path / "scratch"
    a, b, c = (stored(path) for path in (runs / "a", scratch / "b", scratch / "study" / "c"))
    for name, target in {
        "b": b, "disk": scratch, "again": a, "up": tmp_path, "self": runs, "gone": tmp_path / "x"
    }.items():  # fmt: skip
        (runs / name).symlink_to(target)
    (runs / "round").symlink_to(runs / "round")
    (scratch / "back").symlink_to(runs)
    (scratch / "study" / "twice").symlink_to(scratch)
    found = find_runs(runs)
    assert len(found) == 3
    assert {path.resolve() for path in found} == {a, b, c}
    assert a in found
    assert find_runs(runs / "b") == [runs / "b"]


def test_too_many_folders_are_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST_FOLDERS", 3)
    for name in "abcd":
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="more than 3 folders without a run"):
        find_runs(tmp_path)


def test_one_bad_record_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = paths = [stored(tmp_path / name) for name in "abc"]
    (b / "record.json").write_bytes(b"")
    assert [path for path, _ in read_all(paths)] == [a, c]
    assert "1 run is left out, because of: damaged record.json" in caplog.text
    assert str(b) in caplog.text
    with pytest.raises(UserError, match=r"damaged record\.json"):
        read_all([b])


@pytest.mark.parametrize(
    "line",
    [
        "[]", "1", "{}", '{"step": null}', '{"step": true}', '{"step": 1.5}',
        '{"step": 2, "a": "x"}', '{"step": 2, "a": [1]}', '{"step": 2, "a": NaN}',
        '{"step": 2, "a": 1e999}',
        "[" * 100_000, '{"step": ' + "9" * 5000 + "}",
    ],
    ids=lambda line: line[:24],
)  # fmt: skip
def test_a_line_that_is_no_row_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    with directory(tmp_path / "a") as run:
        run.metrics_file.write_text(
            f'{{"step": 1}}\n{line}\n{{"step": 3, "gamma": {{"a": 0.5}}}}\n'
        )
        assert [row["step"] for row in run.rows()] == [1, 3]
        assert "line 2 is damaged" in caplog.text
        run.cut(3, {})
        assert [row["step"] for row in run.rows()] == [1, 3]


# --- Seals -------------------------------------------------------------------------------------


def left(path: Path, status: Status = Status.FINISHED) -> Path:
    """Leave a run with two rows and a grid, and their seals in its record."""
    with directory(path) as run:
        for step in (1, 2):
            run.log({"step": step, "loss": 0.25})
        (run.samples / "step-00000002.png").write_bytes(b"a picture")
        run.write(record(run="a", status=status, files=run.seals()))
    return path


@pytest.mark.parametrize("status", ["finished", "diverged", "failed", "interrupted"])
def test_a_changed_row_or_grid_is_refused(tmp_path: Path, status: Status) -> None:
    run = left(tmp_path / "a", status)
    there = read(run)
    assert set(there.files) == {METRICS, "samples/step-00000002.png"}
    assert [row["loss"] for row in read_rows(run, METRICS, there)] == [0.25, 0.25]
    for name in there.files:
        whole = (run / name).read_bytes()
        assert read_sealed(run, name, there) == whole
        (run / name).write_bytes(whole.replace(b"2", b"3").replace(b"a", b"b"))
        with pytest.raises(UserError, match=rf"damaged {Path(name).name} \(it is not what was"):
            read_sealed(run, name, there)


def test_a_run_that_is_over_has_no_more_rows_and_none_less(tmp_path: Path) -> None:
    run = left(tmp_path / "a")
    whole = (run / METRICS).read_bytes()
    for content in (whole + b'{"step": 3}\n', whole[:-1], b""):
        (run / METRICS).write_bytes(content)
        with pytest.raises(UserError, match="not what was written"):
            read_rows(run, METRICS, read(run))


def test_a_run_that_was_killed_may_have_more_rows_or_less(tmp_path: Path) -> None:
    run = left(tmp_path / "a", Status.INTERRUPTED)
    whole = (run / METRICS).read_bytes()
    for content, rows in ((whole + b'{"step": 3}\n', 3), (whole.splitlines(True)[0], 1)):
        (run / METRICS).write_bytes(content)
        assert len(read_rows(run, METRICS, read(run))) == rows


def test_rows_that_do_not_belong_to_the_checkpoint_are_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = left(tmp_path / "a", Status.INTERRUPTED)
    whole = (run / METRICS).read_text()
    with directory(run) as held:
        seals = read(run).files
        held.log({"step": 3})
        held.cut(2, seals)
        assert held.metrics_file.read_text() == whole
        held.metrics_file.write_text(whole.replace("0.25", "0.26"))
        held.cut(2, seals)
        assert held.rows() == []
    assert "metrics.jsonl is not what was written; moved to metrics.damaged" in caplog.text
    assert (run / "metrics.damaged").read_text() == whole.replace("0.25", "0.26")


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    a, b = left(tmp_path / "a"), tmp_path / "b"
    with directory(b, digest="d2") as run:
        run.write(record(run="b", config_digest="d2"))
    moved = a.rename(tmp_path / "moved")
    assert read(moved).run == "a"
    (b / "record.json").write_bytes((moved / "record.json").read_bytes())
    with pytest.raises(UserError, match=r"damaged record\.json \(config\.json beside it is of"):
        read(b)
    (b / "config.json").write_bytes(b"{")
    assert read(b).run == "a"  # whoever needs the configuration says what is wrong with it
