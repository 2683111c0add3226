import fcntl
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sagan_bench import records
from sagan_bench.errors import UserError
from sagan_bench.records import Attempt, Cost, DataSummary, Record, RunDirectory, Score

CONFIG: dict[str, Any] = {
    "training": {"lr_g": 0.0001, "steps": 100},
    "model": {"attention": {"generator": [8, 16], "discriminator": []}},
}


def score(**changes: Any) -> Score:
    fields: dict[str, Any] = {
        "step": 100,
        "weights": "ema",
        "sampling_seed": 0,
        "n_fake": 2048,
        "fingerprint": "f1",
        "protocol": {"extractor": "effnet-lite0", "splits": 10},
        "metrics": {"fid": 12.5, "isc": 2.0},
        "floor": {"fid": 1.5},
        "final": True,
    }
    return Score(**{**fields, **changes})


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "run": "a-s0-d1",
        "name": "a",
        "variant": "sagan",
        "seed": 0,
        "status": "finished",
        "step": 100,
        "steps": 100,
        "config": CONFIG,
        "config_digest": "d1",
        "environment": {"python": "3.11.7", "platform": "Linux", "device": "cpu", "command": "x"},
    }
    return Record(**{**fields, **changes})


def stored(path: Path, **changes: Any) -> Path:
    path.mkdir(parents=True)
    (path / "record.json").write_bytes(record(run=path.name, **changes).to_json())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- Atomic writes ------------------------------------------------------------------------------


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    records.atomic_write(file, b"old")
    records.atomic_write(file, b"new")
    assert contents(tmp_path) == {"a.json": b"new"}


def test_a_failed_atomic_write_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    records.atomic_write(file, b"old")

    def write_half() -> None:
        with records.atomic_file(file) as out:
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
        records.atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


# --- The record ---------------------------------------------------------------------------------

TEXT = st.text(max_size=8)
WHOLE = st.integers(0, 2**63)
ANY_FLOAT = st.none() | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON | TEXT, max_size=3)
TIME = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=30))]))
SCORES = st.builds(
    Score,
    step=WHOLE,
    weights=st.sampled_from(["ema", "raw"]),
    sampling_seed=WHOLE,
    n_fake=WHOLE,
    fingerprint=TEXT,
    protocol=OBJECT,
    metrics=st.dictionaries(TEXT, ANY_FLOAT, max_size=3),
    floor=st.dictionaries(TEXT, ANY_FLOAT, max_size=3),
    warnings=st.lists(TEXT, max_size=2),
    final=st.booleans(),
)
ATTEMPTS = st.builds(
    Attempt, started=TIME, ended=st.none() | TIME, from_step=WHOLE, to_step=st.none() | WHOLE
)
RECORDS = st.builds(
    record,
    status=st.sampled_from(["running", "finished", "diverged", "interrupted", "failed"]),
    reason=st.none() | TEXT,
    config=OBJECT,
    data=st.none() | st.builds(DataSummary, fingerprint=TEXT, manifest=OBJECT),
    scores=st.lists(SCORES, max_size=2),
    cost=st.builds(Cost, train_sec=ANY_FLOAT, images_per_sec=ANY_FLOAT, parameters_g=WHOLE),
    attempts=st.lists(ATTEMPTS, max_size=2),
)


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_a_record_survives_json(before: Record) -> None:
    text = before.to_json()
    after = Record.model_validate(json.loads(text, parse_constant=no_constant))
    assert after == before
    assert after.to_json() == text


def test_what_is_not_finite_becomes_null_with_a_reason() -> None:
    nan, inf = float("nan"), float("inf")
    one = score(metrics={"fid": nan, "isc": 2.0}, floor={"fid": inf}, warnings=("few images",))
    assert one.metrics == {"fid": None, "isc": 2.0}
    assert one.floor == {"fid": None}
    assert one.warnings == ("few images", "fid was nan", "floor of fid was inf")
    cost = Cost(train_sec=3.0, images_per_sec=nan)
    assert (cost.train_sec, cost.images_per_sec) == (3.0, None)
    assert cost.notes == ("images_per_sec was nan",)


def test_free_form_fields_may_not_hold_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        record(config={"a": float("nan")}).to_json()


def test_times_are_utc_and_naive_ones_are_refused() -> None:
    local = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    attempt = Attempt(started=local, from_step=0)
    assert attempt.model_dump(mode="json")["started"] == "2026-01-02T01:04:05Z"
    with pytest.raises(ValidationError):
        Attempt(started=datetime(2026, 1, 2), from_step=0)


def test_a_record_is_frozen_and_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="colour"):
        record(colour="red")


def test_every_field_says_what_it_is() -> None:
    models = (Record, Score, Cost, records.Environment, DataSummary, Attempt)
    assert all(f.description for model in models for f in model.model_fields.values())


def test_read_takes_a_directory_or_a_file(tmp_path: Path) -> None:
    run = stored(tmp_path / "a")
    assert records.read(run) == records.read(run / "record.json") == record(run="a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"run": "a", ', "damaged record.json"),
        (b"", "damaged record.json"),
        (b"\xff\xfe", "damaged record.json"),
        (b"[1]", "not a JSON object"),
        (b"{}", "schema_version None"),
        (b'{"schema_version": 0}', "schema_version 0"),
        (b'{"schema_version": 1}', "Field required"),
        (record().to_json().replace(b'"seed": 0', b'"seed": "x"'), "seed: "),
        (record(scores=[score()]).to_json().replace(b'"floor": {', b'"floor": 3, "x": {'), "floor"),
    ],
)
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        records.read(tmp_path)
    assert str(file) in str(caught.value)
    assert "--no-resume" in str(caught.value)


def test_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no record\.json"):
        records.read(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    run = stored(tmp_path / "a", schema_version=records.SCHEMA_VERSION + 1)
    with pytest.raises(UserError, match=r"schema 2, this one reads up to 1.*update sagan-bench"):
        records.read(run)


def test_older_schemas_are_upgraded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = json.loads(record().to_json())
    old["schema_version"] = -1
    old["title"] = old.pop("name")
    (tmp_path / "record.json").write_text(json.dumps(old))

    def named(stored: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in stored.items() if k != "title"}, "name": stored["title"]}

    def shouted(stored: dict[str, Any]) -> dict[str, Any]:
        return {**stored, "name": stored["name"].upper()}

    monkeypatch.setattr(records, "UPGRADES", {-1: named, 0: shouted})
    assert records.read(tmp_path) == record(name="A")


def test_find_runs_is_sorted_nested_and_leaves_out_what_was_moved_aside(tmp_path: Path) -> None:
    runs = [stored(tmp_path / name) for name in ("b", "a", "study/c", "a.old-1", ".hidden/d")]
    stored(runs[0] / "samples" / "inner")
    assert records.find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "study/c"]
    assert records.find_runs(runs[0]) == [runs[0]]
    assert records.find_runs(tmp_path / "none") == []


# --- The table ----------------------------------------------------------------------------------


def test_a_run_that_failed_first_shifts_nothing(tmp_path: Path) -> None:
    failed = stored(tmp_path / "a", status="failed", reason="out of memory", step=3, seed=7)
    scores = (score(), score(weights="raw", metrics={"fid": None, "kid": 0.5}, warnings=("w",)))
    cost = Cost(train_sec=60.0, parameters_g=11)
    done = stored(tmp_path / "b", scores=scores, cost=cost, seed=8)
    table = records.frame([failed, done])
    assert list(table.run) == ["a", "b", "b"]
    assert list(table.seed) == [7, 8, 8]
    assert list(table.step) == [3, 100, 100]
    assert list(table.reason.fillna("-")) == ["out of memory", "-", "-"]
    assert list(table.fid.fillna(-1)) == [-1, 12.5, -1]
    assert list(table.isc.fillna(-1)) == [-1, 2.0, -1]
    assert list(table.kid.fillna(-1)) == [-1, -1, 0.5]
    assert list(table.weights.fillna("-")) == ["-", "ema", "raw"]
    assert list(table.warnings.fillna("-")) == ["-", "", "w"]
    assert list(table.train_sec.fillna(-1)) == [-1, 60.0, 60.0]
    assert list(table["floor.fid"].fillna(-1)) == [-1, 1.5, 1.5]
    assert list(table["protocol.splits"].fillna(-1)) == [-1, 10, 10]


def test_config_columns_are_factors(tmp_path: Path) -> None:
    other = {"model": {"attention": {"generator": []}}, "training": {"lr_g": 0.0004, "ema": 0.9}}
    table = records.frame([stored(tmp_path / "a"), stored(tmp_path / "b", config=other)])
    assert list(table["config.model.attention.generator"]) == ["8,16", ""]
    assert list(table["config.training.lr_g"]) == [0.0001, 0.0004]
    assert list(table["config.training.ema"].isna()) == [True, False]
    assert list(table["config.training.steps"].isna()) == [False, True]


def test_types_do_not_depend_on_what_is_missing(tmp_path: Path) -> None:
    one = score(metrics={"fid": None, "twin_rate": 1})
    table = records.frame([stored(tmp_path / "a", scores=(one,))])
    empty = records.frame([])
    assert (table.dtypes[empty.columns] == empty.dtypes).all()
    assert table.fid.dtype == table.twin_rate.dtype == "Float64"
    assert len(empty) == 0


def test_missing_is_na_and_never_nan(tmp_path: Path) -> None:
    run = stored(tmp_path / "a", scores=(score(metrics={"fid": float("nan")}),))
    assert records.frame([run]).fid[0] is pd.NA


def test_the_table_states_the_status_as_of_now(tmp_path: Path) -> None:
    table = records.frame([stored(tmp_path / "a", status="running")])
    assert (table.status[0], table.reason[0]) == ("interrupted", "the process was killed")


# --- Environment --------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    (root / "package" / "a.py").write_text("a = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


def test_commit_and_dirtiness_are_those_of_the_package(checkout: Path) -> None:
    package = checkout / "package"
    assert records._git_state(package) == (None, None)  # nothing committed yet
    git(checkout, "commit", "-q", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "notes.txt").write_text("not part of the package")
    assert records._git_state(package) == (commit, False)
    (package / "a.py").write_text("a = 2\n")
    assert records._git_state(package) == (commit, True)
    git(checkout, "checkout", "-q", ".")
    (package / "new.py").touch()
    assert records._git_state(package) == (commit, True)


def test_a_package_installed_inside_a_repository_is_not_of_it(checkout: Path) -> None:
    git(checkout, "commit", "-q", "-m", "first")
    inner = checkout / "venv" / "package"
    inner.mkdir(parents=True)
    assert records._git_state(inner) == (None, None)


def test_a_git_hook_does_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "commit", "-q", "-m", "first")
    expected = records._git_state(checkout / "package")
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    assert records._git_state(checkout / "package") == expected


def test_environment_without_git_and_with_an_odd_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["cli.py", "a b", "\udcff"])
    found = records.environment("cuda", device_name="Card", threads=2, cuda="13.0")
    assert (found.git_commit, found.git_dirty) == (None, None)
    assert found.command == r"cli.py 'a b' '\udcff'"
    assert (found.device, found.device_name, found.threads, found.cuda) == (
        "cuda",
        "Card",
        2,
        "13.0",
    )
    assert found.python == sys.version.split()[0]
    assert found.torch is not None
    assert found.torch[0].isdigit()
    assert found.cpu
    record(environment=found).to_json()


# --- The run directory --------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from sagan_bench.records import RunDirectory
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
    assert records.status_now(run) == "interrupted"
    with held_elsewhere(run) as process:
        assert records.is_locked(run)
        assert records.status_now(run) == "running"
        with pytest.raises(UserError, match=f"process {process.pid} on .*wait"), directory(run):
            pass
        with pytest.raises(UserError, match="in use"), directory(run, fresh=True):
            pass
        assert run.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not records.is_locked(run)
    assert records.status_now(run) == "interrupted"
    with directory(run):
        assert records.is_locked(run)


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
    assert not records.is_locked(tmp_path / "a")
    assert not (tmp_path / "a" / ".holder.json").exists()


def test_probes_neither_deceive_each_other_nor_turn_a_run_away(tmp_path: Path) -> None:
    with directory(tmp_path / "a"):
        pass
    with (tmp_path / "a" / ".lock").open("rb") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)  # as is_locked does
        assert not records.is_locked(tmp_path / "a")
        release = threading.Timer(0.1, fcntl.flock, (probe, fcntl.LOCK_UN))
        release.start()
        with directory(tmp_path / "a"):
            assert records.is_locked(tmp_path / "a")
        release.join()


def test_probing_leaves_no_trace(tmp_path: Path) -> None:
    assert not records.is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_between_the_two_looks_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored(tmp_path / "a", status="running")

    def ends(path: Path) -> bool:
        (path / "record.json").write_bytes(record().to_json())
        return False

    monkeypatch.setattr(records, "is_locked", ends)
    assert records.status_now(run) == "finished"


def test_another_digest_is_refused_key_by_key(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.log({"step": 1})
        run.write(record())
    before = contents(tmp_path)
    asked = {"training": {"lr_g": 0.0004, "steps": 100}, "model": {"attention": {}}, "new": "x"}
    with pytest.raises(UserError) as caught, directory(run.path, digest="d2", config=asked):
        pass
    assert contents(tmp_path) == before
    assert not records.is_locked(run.path)
    for part in (
        "training.lr_g: 0.0001 here, 0.0004 asked",
        "model.attention.generator: [8, 16] here, absent asked",
        'new: absent here, "x" asked',
        str(run.path),
        "--no-resume",
    ):
        assert part in str(caught.value)
    assert "steps" not in str(caught.value)


def test_a_run_begun_while_the_lock_was_awaited_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquired = records._acquired

    def too_late(path: Path) -> Any:
        (path / "config.json").write_text('{"digest": "d2", "config": {}}')
        return acquired(path)

    monkeypatch.setattr(records, "_acquired", too_late)
    with pytest.raises(UserError, match="another run is here"), directory(tmp_path / "a"):
        pass
    assert not records.is_locked(tmp_path / "a")


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
        assert json.loads((run / "config.json").read_bytes()) == {"digest": "d1", "config": CONFIG}


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
    assert not records.is_locked(tmp_path / "a.old-1")


def test_opening_again_keeps_what_is_there_and_sweeps_leftovers(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.write(record())
        run.log({"step": 1})
        kept = contents(run.path)
        for leftover in (".record.json.0a1b.tmp", "checkpoints/.step-00000001.ckpt.0a1b.tmp"):
            (run.path / leftover).write_bytes(b"half")
    with directory(run.path) as again:
        assert contents(again.path) == kept
        assert records.read(again.path) == record()


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
        run.cut(2)
        run.log({"step": 3})
        assert run.metrics_file.read_text() == '{"step":1}\n{"step":2}\n{"step":3}\n'


def test_cut_before_the_first_row(tmp_path: Path) -> None:
    with directory(tmp_path / "a") as run:
        run.cut(0)
        assert run.rows() == []


def test_a_damaged_line_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with directory(tmp_path / "a") as run:
        run.metrics_file.write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
        with caplog.at_level(logging.WARNING):
            assert [row["step"] for row in run.rows()] == [1, 3]
    assert "line 2 is damaged" in caplog.text


def test_records_import_quickly() -> None:
    code = "import sys, sagan_bench.records; print('torch' in sys.modules, 'pandas' in sys.modules)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert time.monotonic() - began < 5
