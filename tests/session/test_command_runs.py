"""Runs that another program makes: each way in which one ends, and what is recorded of it."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagan_bench.core import groups
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.stops import StopReason
from sagan_bench.execution.attempt import attempt, placed
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.slots import Slot
from sagan_bench.runs import records
from sagan_bench.runs.command import Command, folder_of
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Record, Status
from sagan_bench.session import command as session
from sagan_bench.session.events import Progress, Scored, Stopped

WELL = """
import json, sys
from pathlib import Path
out = Path(sys.argv[1])
"""
RESULT = '(out / "result.json").write_text(json.dumps({}))\n'


@pytest.fixture(autouse=True)
def _hears_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SECONDS_TO_HEAR", 0.2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cell"


def command(text: str, folder: Path, **values: Any) -> Command:
    """A command that runs a Python program of that text with its folder and its seed."""
    script = folder / "program.py"
    script.write_text(WELL + text)
    more = "".join(f" {{{name}}}" for name in values)
    source = f"{sys.executable} -S {script} {{out}} {{seed}}{more}"
    return Command(Program(source=source, values=values, better={"fid": "lower"}), "a", 3)


def made(text: str, path: Path, *, stop: Callable[[], str | None] = lambda: None) -> Record:
    run = command(text, path.parent)
    return session.run(run, out=path, watch=lambda event: None, stop=stop)


def result(**fields: Any) -> str:
    return RESULT.format(repr(fields).replace("nan", 'float("nan")'))


def test_a_program_that_leaves_its_figures_is_a_finished_run(path: Path) -> None:
    events: list[Any] = []
    text = (
        'print("hello"); print("oh", file=sys.stderr)\n'
        '(out / "progress.jsonl").write_text(json.dumps({"step": 40, "steps": 200}) + "\\n")\n'
    ) + result(
        metrics={"fid": 12.5, "seconds an image": 3},
        curve={"fid": [[100, 40.0], [200, 12.5]]},
        steps=200,
        seconds=7.5,
        flops_per_step=900,
    )
    run = command(text, path.parent)
    record = session.run(run, out=path, watch=events.append, stop=lambda: None)

    assert record == records.read(path)
    assert (record.status, record.reason) == (Status.FINISHED, None)
    assert (record.step, record.steps, record.seed) == (200, 200, 3)
    assert [(s.step, s.final, s.metrics) for s in record.scores] == [
        (100, False, {"fid": 40.0}),
        (200, False, {"fid": 12.5}),
        (200, True, {"fid": 12.5}),
    ]
    assert (record.cost.train_sec, record.cost.flops_per_step) == (7.5, 900)
    assert record.attempts[0].outcome == Status.FINISHED
    assert Progress("program", 40, 200) in events
    assert [event for event in events if isinstance(event, Scored)][-1].score.final
    assert record.run == path.name
    log = (path / "log.txt").read_text()
    assert {entry.name for entry in path.iterdir()} == {
        ".lock", ".program.lock", "config.json", "log.txt", "out", "record.json",
    }  # fmt: skip
    assert log.startswith("--- attempt of 20")
    assert str(folder_of(path)) in log
    assert "hello\n" in log
    assert "oh\n" in log


def test_what_is_over_is_not_run_again(path: Path) -> None:
    first = made(result(metrics={"fid": 1}), path)
    assert (
        session.run(command("sys.exit(1)", path.parent), out=path, watch=print, stop=lambda: None)
        == first
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (result(status="diverged", reason="loss is inf at step 7"), "loss is inf at step 7"),
        (result(status="diverged"), "it says so"),
        (result(metrics={"fid": float("nan")}), "fid is nan"),
    ],
)
def test_a_run_that_diverged_is_a_result(path: Path, text: str, reason: str) -> None:
    record = made(text, path)
    assert (record.status, record.reason) == (Status.DIVERGED, reason)
    assert not [score for score in record.scores if score.final]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ended well and left no result.json in "),
        ('(out / "result.json").mkdir()', "it is a folder or a device"),
        ('(out / "result.json").write_text("")', "damaged result.json (Expecting value"),
        ('(out / "result.json").write_bytes(b"\\xff\\xfe{}")', "damaged result.json ("),
        ('(out / "result.json").write_text("[1]")', "not a JSON object"),
        (result(metrics={"is": 3}), "metrics has no 'fid', which the study needs; known are: is"),
        (result(), "metrics has no 'fid', which the study needs; it is empty"),
        (result(metrics={"fid": "12"}), "metrics.fid: expected a number"),
        (result(metrics={"fid": True}), "metrics.fid: expected a number"),
        (result(metrics=[12]), "metrics: expected a table"),
        (result(metrics={"fid": 1}, curves={}), "'curves' is no key of it; did you mean 'curve'?"),
        (result(metrics={"fid": 1}, curve={"fid": [[1, 2, 3]]}), "curve.fid.0"),
        (result(metrics={"fid": 1}, curve={"fid": [[1, 2], [1, 3]]}), "a step is there twice"),
        (result(metrics={"fid": 1}, curve={"fid": [[9, 2]]}, steps=5), "a step beyond the 5"),
        (result(metrics={"fid": 1}, steps=0), "steps: expected 1 or more"),
        (result(metrics={"fid": 1}, seconds=-1), "seconds: expected 0.0 or more"),
        (result(metrics={"fid": 1}, status="done"), "status: expected 'finished' or 'diverged'"),
        ("print('a'); sys.exit('no memory')", "exit code 1; log.txt ends: a | no memory"),
        ("sys.exit(7)", "the program ended with exit code 7; log.txt is empty"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_what_fails_says_why(path: Path, text: str, reason: str) -> None:
    record = made(text, path)
    assert record.status == Status.FAILED
    assert reason in (record.reason or "")
    assert record.attempts[-1].outcome == Status.FAILED
    assert record == records.read(path)


def test_a_null_is_a_run_without_a_figure(path: Path) -> None:
    record = made(result(metrics={"fid": None}), path)
    assert record.status == Status.FINISHED
    assert record.scores[-1].metrics == {"fid": None}


def test_progress_that_is_nonsense_is_passed_over(path: Path) -> None:
    lines = ['{"step": 5}', "{", '{"step": "6"}', '{"step": -1}', "[]", "\\u0000", '{"step": 9}']
    text = f'(out / "progress.jsonl").write_text("\\n".join({lines}))\nsys.exit(1)'
    assert made(text, path).step == 5  # the last line is still being written


# --- Lost to the machine -----------------------------------------------------------------------

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def test_a_program_that_is_killed_is_lost_to_the_machine_three_times(path: Path) -> None:
    for _ in range(2):
        record = made(KILLED, path)
        assert record.status == Status.INTERRUPTED
        assert "the program was ended by SIGKILL (out of memory?)" in (record.reason or "")
    record = made(KILLED, path)
    assert record.status == Status.FAILED
    assert "(lost 3 times without a step gained)" in (record.reason or "")
    assert len(record.attempts) == 3


def test_steps_gained_are_what_losses_are_counted_by(path: Path) -> None:
    gains = (
        'with (out / "progress.jsonl").open("a") as file:\n'
        '    file.write(json.dumps({"step": file.tell() + 1}) + "\\n")\n'
    )
    for _ in range(4):
        record = made(gains + KILLED, path)
        assert record.status == Status.INTERRUPTED
    steps = [attempt.from_step for attempt in record.attempts]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    "text",
    [
        "sys.exit(137)",  # a shell's word for SIGKILL
        "raise MemoryError",
        'sys.exit("RuntimeError: CUDA error: out of memory")',
    ],
)
def test_what_a_shell_or_the_log_says_of_the_machine_is_understood(path: Path, text: str) -> None:
    assert made(text, path).status == Status.INTERRUPTED


# --- Asked to stop -----------------------------------------------------------------------------

WAITS = """
import signal, time
def polite(number, frame):
    (out / "signal").write_text(str(number))
    sys.exit(0)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, polite)
(out / "result.json").write_text(json.dumps({"metrics": {"fid": 99}}))  # on the way
(out / "ready").touch()
time.sleep(60)
"""


def when_ready(path: Path, reason: str) -> Callable[[], str | None]:
    return lambda: reason if (folder_of(path) / "ready").exists() else None


@pytest.mark.parametrize(
    ("reason", "number"),
    [(StopReason.INTERRUPTED, signal.SIGINT), (StopReason.TERMINATED, signal.SIGTERM)],
)
def test_a_request_to_stop_is_passed_on(path: Path, reason: str, number: int) -> None:
    with pytest.raises(Stopped, match=str(reason)):
        made(WAITS, path, stop=when_ready(path, reason))
    assert (folder_of(path) / "signal").read_text() == str(int(number))
    record = records.read(path)
    assert (record.status, record.reason) == (Status.INTERRUPTED, reason)
    assert record.attempts[-1].outcome == Status.INTERRUPTED
    assert not record.scores

    again = made(result(metrics={"fid": 1}), path)
    assert again.status == Status.FINISHED
    assert len(again.attempts) == 2
    assert (path / "log.txt").read_text().count("--- attempt ") == 2


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(0)", "sys.exit(1)"]
)
def test_a_program_that_hears_of_the_end_first_has_not_failed(path: Path, end: str) -> None:
    text = f"import os, signal\n(out / 'ready').touch()\n{end}"
    asked = list[float]()

    def heard_late() -> str | None:
        if (folder_of(path) / "ready").exists():
            asked.append(time.monotonic())
        return "preempted" if asked and time.monotonic() - asked[0] > 0.1 else None

    for _ in range(3):  # never `failed`, however often
        asked.clear()
        with pytest.raises(Stopped, match="preempted"):
            made(text, path, stop=heard_late)
        (folder_of(path) / "ready").unlink()
    record = records.read(path)
    assert (record.status, record.reason) == (Status.INTERRUPTED, "preempted")
    assert {attempt.outcome for attempt in record.attempts} == {Status.INTERRUPTED}


def test_figures_on_the_way_are_no_result_where_the_program_hears_of_the_end_first(
    path: Path,
) -> None:
    text = result(metrics={"fid": 99}) + "(out / 'ready').touch()"
    with pytest.raises(Stopped, match="preempted"):
        made(text, path, stop=when_ready(path, "preempted"))
    assert not records.read(path).scores


def test_what_does_not_stop_is_killed_with_all_that_it_started(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "GRACE_SEC", 0.3)
    text = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
(out / "child").write_text(str(child.pid))
(out / "ready").touch()
time.sleep(60)
"""
    began = time.monotonic()
    with pytest.raises(Stopped):
        made(text, path, stop=when_ready(path, StopReason.TERMINATED))
    assert time.monotonic() - began < 20
    assert is_gone(int((folder_of(path) / "child").read_text()))


def is_gone(pid: int) -> bool:
    for _ in range(50):
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if status == "Z":
            return True
        time.sleep(0.1)
    return False


def test_what_a_program_left_running_ends_with_it(path: Path) -> None:
    text = """
import subprocess
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
(out / "child").write_text(str(child.pid))
""" + result(metrics={"fid": 1})
    assert made(text, path).status == Status.FINISHED
    assert is_gone(int((folder_of(path) / "child").read_text()))


def test_a_program_whose_driver_was_killed_is_ended_before_it_runs_again(path: Path) -> None:
    run = command("import time; (out / 'ready').touch(); time.sleep(60)", path.parent)
    folder_of(path).mkdir(parents=True)
    lock = path / ".program.lock"
    with (path.parent / "log").open("wb") as log:
        group = groups.ProcessGroup(run.words(path), lock=lock, log=log, environment={})
        group.__enter__()  # and never left, as by a kill
        while not (folder_of(path) / "ready").exists():
            time.sleep(0.01)
        reaping = threading.Thread(target=group.process.wait)
        reaping.start()
        words = [sys.executable, "-S", "-c", "pass"]
        with groups.ProcessGroup(words, lock=lock, log=log, environment={}) as second:
            while second.wait() is None:
                pass
    reaping.join(10)
    assert group.process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])  # as of a container
def test_a_program_of_another_machine_is_left_alone(path: Path, host: str) -> None:
    run = command("import time; time.sleep(60)", path.parent)
    folder_of(path).mkdir(parents=True)
    lock = path / ".program.lock"
    with (path.parent / "log").open("wb") as log:
        how: Any = {"lock": lock, "log": log, "environment": {}}
        with groups.ProcessGroup(run.words(path), **how) as group:
            held = {"group": group.process.pid, "host": host, "of": "others"}
            lock.write_text(json.dumps(held))
            with (
                pytest.raises(MachineError, match=f"still runs on {host}"),
                groups.ProcessGroup(run.words(path), **how),
            ):
                pass
            assert group.process.poll() is None


# --- In a slot ---------------------------------------------------------------------------------


def job(text: str, path: Path) -> Job:
    run = command(text, path.parent)
    return Job("a-s3", run, path, run.digest)


def test_a_slot_is_told_by_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    text = """
import os
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
(out / "seen").write_text(json.dumps([os.environ.get(name) for name in names]))
""" + result(metrics={"fid": 1})
    given = placed(job(text, path), Slot("cuda:1", 3, 2))
    assert attempt(given, lambda event: None, lambda: None) == Ended(Status.FINISHED, None)
    assert json.loads((folder_of(path) / "seen").read_text()) == ["7", "3"]
    record = records.read(path)
    assert record.environment.device == "cuda:1"
    assert record.attempts[-1].threads == 3
    program: Any = record.config["program"]
    assert program["cells_on_device"] == 2


def test_a_program_that_is_not_here_is_a_failed_run(path: Path) -> None:
    program = Program(source="no-such-program {out} {seed}", better={"fid": "lower"})
    run = Command(program, "a", 3)
    ended = attempt(Job("a-s3", run, path, run.digest), lambda event: None, lambda: None)
    assert ended.status == Status.FAILED
    assert "cannot run no-such-program: No such file or directory" in (ended.reason or "")
    assert records.read(path).reason == ended.reason


def test_the_run_of_another_command_is_refused(path: Path) -> None:
    made(result(metrics={"fid": 1}), path)
    other = Command(Program(source="true {out} {seed}", better={"fid": "lower"}), "a", 3)
    with pytest.raises(UserError, match="another run is here"):
        session.run(other, out=path, watch=print, stop=lambda: None)


def test_output_that_is_no_text_is_told_as_far_as_it_is(path: Path) -> None:
    record = made('os = __import__("os"); os.write(2, b"\\xff\\x1b[2Jbad\\n"); sys.exit(2)', path)
    assert (record.reason or "").endswith("bad")
    assert os.fsencode(record.reason or "")
