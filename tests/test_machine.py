"""A failure of the machine: said clearly, no result, nothing lost, and the same command goes on."""

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from example_records import stored
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import files
from sagan_bench.core.errors import MachineError, UserError, machine_cause, machine_error
from sagan_bench.runs import records, run_directory
from sagan_bench.runs.run_directory import read_now
from sagan_bench.session import experiment
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints, DamagedCheckpoint

HOST = Host(bf16=False, extractor="efficientnet-lite0")
ROOT = Path(cli.__file__).parents[2]
ON_THE_WAY = [*SMALL, "run.eval_every=3", "run.eval_images=8", "training.precision=fp32"]
Out = pytest.CaptureFixture[str]


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*ON_THE_WAY, *sets]).config


def train(out: Path) -> list[str]:
    return ["train", "--out", str(out), *(part for s in ON_THE_WAY for part in ("--set", s))]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Let the disk fail from the first time that a file of some name is synced."""
    synced = os.fsync

    def breaking(name: str, number: int) -> None:
        failed: list[bool] = []

        def fsync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if name in path:
                failed.append(True)
            if failed:
                raise OSError(number, os.strerror(number))
            synced(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    yield breaking
    monkeypatch.setattr(os, "fsync", synced)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for names")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("name", "number", "told"),
    [
        (".ckpt", errno.ENOSPC, "No space left on device"),
        ("record.json", errno.EIO, "Input/output error"),
        ("weights.pt", errno.ENOSPC, "No space left on device"),
        ("metrics.jsonl", errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_fails_breaks_a_run_off_and_the_same_command_goes_on(
    name: str, number: int, told: str, tmp_path: Path, capsys: Out,
    broken: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context():
        broken(name, number)
        assert run(*train(tmp_path / "run")) == cli.USAGE
    error = capsys.readouterr().err
    assert f"error: {told}; {tmp_path / 'run'}" in error
    assert "the same command then goes on" in error
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    if (tmp_path / "run" / "record.json").exists():
        assert read_now(tmp_path / "run").status == "interrupted"
    record = experiment.run(make(), out=tmp_path / "run")
    whole = experiment.run(make(), out=tmp_path / "whole")
    assert record.status == "finished"
    assert [s.metrics for s in record.scores] == [s.metrics for s in whole.scores]
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.slow
def test_a_run_lost_three_times_without_a_step_gained_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Checkpoints, step: int, state: Any) -> None:
        if step > 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.folder))
        saved(self, step, state)

    saved = Checkpoints.save
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        for _ in range(4):
            with pytest.raises(MachineError, match="Input/output error"):
                experiment.run(make(), out=tmp_path / "run")
            found.append(records.read(tmp_path / "run").status)
    # The first attempt began at step 0 and left a checkpoint: from there three more were lost.
    assert found == ["interrupted", "interrupted", "interrupted", "failed"]
    reason = records.read(tmp_path / "run").reason
    assert reason is not None
    assert "lost 3 times without a step gained" in reason
    assert experiment.run(make(), out=tmp_path / "run").status == "finished"


def test_a_finished_run_stays_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make("run.keep_training_state=false")

    def clear(self: Checkpoints) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.folder))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "clear", clear)
        with pytest.raises(MachineError):
            experiment.run(config, out=tmp_path / "run")
    assert records.read(tmp_path / "run").status == "finished"
    left = tmp_path / "run" / "checkpoints"
    assert list(left.iterdir())
    experiment.run(config, out=tmp_path / "run")
    assert not list(left.iterdir())


def test_rows_are_on_the_disk_before_their_checkpoint_and_the_record_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(run_directory, "sync", lambda path: done.append(f"sync {path.name}"))
    replaced = os.replace

    def replace(old: Any, new: Any) -> None:
        done.append(Path(new).name)
        replaced(old, new)

    monkeypatch.setattr(os, "replace", replace)
    experiment.run(make("run.steps=2"), out=tmp_path / "run")
    at = done.index("step-00000002.ckpt")
    assert done[at - 3 : at] == ["sync metrics.jsonl", "sync diagnostics.jsonl", "record.json"]


def test_rows_that_a_power_cut_took_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sagan_bench.session.events import Stopped

    at: list[Any] = []
    with pytest.raises(Stopped):
        experiment.run(
            make(), out=tmp_path / "run", watch=at.append,
            stop=lambda: "asked" if at and getattr(at[-1], "step", 0) == 4 else None,
        )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    experiment.run(make(), out=tmp_path / "run")
    assert "metrics.jsonl: rows after step 2 are lost, up to step 4" in caplog.text


def test_a_checkpoint_on_a_full_disk_says_so(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from sagan_bench.training import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: checkpoint.save(Path(sys.argv[1]), {'w': torch.zeros(10**6)})\n"
        "except OSError as error: print(error.errno, error.filename)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "step.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(tmp_path / "step.ckpt")]
    assert not list(tmp_path.iterdir())


def test_a_foreign_pickle_under_a_right_digest_is_a_damaged_checkpoint(tmp_path: Path) -> None:
    import hashlib

    payload = pickle.dumps(print, protocol=2)
    file = tmp_path / "weights.pt"
    file.write_bytes(checkpoint.OLDER + hashlib.sha256(payload).digest() + payload)
    with pytest.raises(DamagedCheckpoint, match=r"was not saved here.*weights\.pt"):
        checkpoint.load(file)


def test_what_killed_writers_left_is_swept_and_what_others_write_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, ours = (tmp_path / f".x.json.{pid}-0123abcd.tmp" for pid in (ended.pid, os.getpid()))
    for file in (dead, ours):
        file.touch()
    (tmp_path / ".folder.1-0123abcd.tmp").mkdir()
    files.sweep_dead(tmp_path)
    assert not dead.exists()
    assert ours.exists()
    files.sweep(tmp_path)
    assert not ours.exists()


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "can be written to"), (errno.EIO, "disk")],
)
def test_an_error_says_what_where_and_what_to_do(number: int, advice: str) -> None:
    told = str(machine_error(OSError(number, os.strerror(number), "/a/file")))
    assert told.startswith(f"{os.strerror(number)}; /a/file; ")
    assert advice in told
    assert told.endswith("the same command then goes on")


def test_images_that_change_beside_the_training_stop_it_and_leave_nothing_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagan_bench.data import building
    from sagan_bench.data.verification import Verification

    monkeypatch.setattr(building, "SMALL_BYTES", 0)  # not before training

    def finish(self: Verification) -> None:
        self.failure = UserError("the store is damaged")
        self.check()

    config = make("run.steps=4")
    with monkeypatch.context() as patch:
        patch.setattr(Verification, "finish", finish)
        with pytest.raises(UserError, match="the store is damaged"):
            experiment.run(config, out=tmp_path / "run")
    record = records.read(tmp_path / "run")
    assert (record.status, record.step) == ("failed", 4)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_an_error_of_a_library_that_came_of_the_disk_is_the_disks() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file")
    error = RuntimeError("did not possess lock")
    error.__cause__ = full
    assert machine_cause(error) is full
    assert machine_cause(RuntimeError("a bug")) is None


# Streams, as scripts and services leave them


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    environment = os.environ | options.pop("env", {})
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_streams_without_our_characters_take_what_they_can(encoding: str, tmp_path: Path) -> None:
    stored(tmp_path / "runs" / "a")
    done = program("show", "a", env={"PYTHONIOENCODING": encoding}, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout.decode(encoding)
    shown = program(
        "show", "a", "--json", env={"PYTHONIOENCODING": encoding}, stdout=subprocess.PIPE
    )
    assert json.loads(shown.stdout.decode(encoding))["run"] == "a"


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams_hinder_nothing(closed: str, tmp_path: Path) -> None:
    line = f"{sys.executable} {ROOT / 'cli.py'} list variants {closed}"
    assert subprocess.run(["sh", "-c", line]).returncode == 0


def test_a_reader_that_has_enough_ends_the_program_quietly() -> None:
    line = f"{sys.executable} {ROOT / 'cli.py'} show config --json; echo $? >&2"
    process = subprocess.Popen(
        ["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    told = process.stderr.read().split()
    process.wait()
    process.stderr.close()
    assert told == ["0"]  # and no word more


@pytest.mark.parametrize("verb", ["--help", "show config --json", "doctor"])
def test_a_full_disk_behind_stdout_is_called_by_its_name(verb: str) -> None:
    line = f"{sys.executable} {ROOT / 'cli.py'} {verb} > /dev/full"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left on device; standard output; free some")
    assert len(done.stderr.splitlines()) == 1


def test_a_full_disk_behind_stderr_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "record.json").write_text("{")
    stored(tmp_path / "runs" / "b")
    line = f"{sys.executable} {ROOT / 'cli.py'} list --runs {tmp_path / 'runs'} 2> /dev/full"
    done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "finished" in done.stdout


def test_no_compiler_is_told_before_training(tmp_path: Path, capsys: Out) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        assert run(*train(tmp_path / "run"), "--compile") == cli.USAGE
    assert "no-such-compiler is not to be found; install one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_weights_of_a_checkpoint_load_as_before(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.ckpt", {"w": torch.ones(3)})
    assert torch.equal(checkpoint.load(tmp_path / "a.ckpt")["w"], torch.ones(3))
