"""The program that SLURM begins for a run: what it says, hears and leaves."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from example_studies import here, small_study

from sagan_bench.core import locks, registry
from sagan_bench.execution import alone, code, messages
from sagan_bench.execution.alone import HELD
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.engines._slurm import cell, queue
from sagan_bench.execution.engines._slurm.cell import TAKEN, TIME_LIMIT
from sagan_bench.execution.engines._slurm.folder import Folder, Spot
from sagan_bench.experiments import ablation
from sagan_bench.runs import environment, records
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Progress
from sagan_bench.training import loop
from sagan_bench.training.loop import Step


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return ablation.with_data(ablation.plan(small_study(tmp_path), tmp_path / "s", here)).points[1]


def made(job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch, array: str = "16") -> list[Any]:
    """Make a run as its job does, and return what it said."""
    place = Folder(folder)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        assert cell.main(place.write(1, [job]), "cpu", 1) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return [messages.event_in(line) for line in place.news(Spot(1, 0), 0)[0].splitlines()]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Any) -> None:
    """Have something done after a step."""
    seen = loop.train

    def train(*given: Any) -> Any:
        for event in seen(*given):
            yield event
            if event.step == step:
                do()

    monkeypatch.setattr("sagan_bench.session.session.train", train)


@pytest.mark.slow
def test_a_run_says_how_far_it_is_and_how_it_ended(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = made(job, tmp_path / "s", monkeypatch)
    assert said[-1] == Ended(Status.FINISHED, None)
    assert [what for what in said if isinstance(what, Step)] == [Step(1, None)]  # not one a step
    record = records.read(job.path)
    assert (record.status, record.environment.threads) == (Status.FINISHED, 1)


def test_what_a_job_has_made_to_its_end_is_not_made_again_where_slurm_puts_it_back(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("on purpose")

    at_step(monkeypatch, 3, fails)
    said = made(job, tmp_path / "s", monkeypatch)
    assert said[-1].status is Status.FAILED
    assert made(job, tmp_path / "s", monkeypatch) == said
    assert len(records.read(job.path).attempts) == 1
    made(job, tmp_path / "s", monkeypatch, array="18")  # as by --retry-failed
    assert [attempt.job for attempt in records.read(job.path).attempts] == ["16_0", "18_0"]


@pytest.mark.parametrize(
    ("number", "reason", "back"),
    [(signal.SIGUSR1, TIME_LIMIT, ["17"]), (signal.SIGTERM, TAKEN, [])],
)
def test_a_signal_is_a_checkpoint_and_the_time_limit_puts_the_job_back(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str,
    back: list[str],
) -> None:  # fmt: skip
    put = list[str]()
    monkeypatch.setattr(queue, "put_back", put.append)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
    assert made(job, tmp_path / "s", monkeypatch)[-1] == Ended(Status.INTERRUPTED, reason)
    last = records.read(job.path).attempts[-1]
    assert (last.to_step, last.outcome) == (4, Status.INTERRUPTED)
    assert (last.host, last.engine, last.job) == (socket.gethostname(), "slurm", "16_0")
    assert put == back


def test_a_time_limit_without_a_step_gained_does_not_put_the_job_back(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = list[str]()
    monkeypatch.setattr(queue, "put_back", put.append)
    monkeypatch.setattr(cell, "gained", lambda path: False)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    made(job, tmp_path / "s", monkeypatch)
    assert put == []


def test_a_stop_file_ends_a_run_for_its_reason(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell, "SECONDS_BETWEEN_LOOKS", 0.0)
    place = Folder(tmp_path / "s")
    at_step(monkeypatch, 3, lambda: place.stop(Spot(1, 0), "pruned"))
    assert made(job, tmp_path / "s", monkeypatch)[-1] == Ended(Status.INTERRUPTED, "pruned")
    assert records.read(job.path).reason == "pruned"


def test_that_nothing_can_be_said_fails_no_run(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "events", lambda self, spot: tmp_path / "nowhere" / "events")
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert made(job, tmp_path / "s", monkeypatch) == []
    assert records.read(job.path).reason == TAKEN


def test_a_run_that_another_attempt_holds_is_interrupted_and_left_alone(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "SECONDS_FOR_A_LOCK", 0)
    job.path.mkdir(parents=True)
    with locks.holding(job.path / ".lock"):
        said = made(job, tmp_path / "s", monkeypatch)
    (ended,) = said
    assert ended.status is Status.INTERRUPTED
    assert ended.reason.startswith(f"{HELD}: process {os.getpid()} on ")
    assert not (job.path / "record.json").exists()


def test_waiting_for_an_earlier_attempt_ends_when_the_run_is_to_stop(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job.path.mkdir(parents=True)
    place = Folder(tmp_path / "s")
    place.path.mkdir()
    monkeypatch.setattr(alone, "SECONDS_IN_SILENCE", -1)
    monkeypatch.setattr(time, "sleep", lambda _: place.stop(Spot(1, 0), "pruned"))
    monkeypatch.setattr(cell, "SECONDS_BETWEEN_LOOKS", 0)
    with locks.holding(job.path / ".lock"):
        said = made(job, tmp_path / "s", monkeypatch)
    assert said == [Ended(Status.INTERRUPTED, "pruned")]
    assert f"{job.path.name} waits: it is held by process {os.getpid()} on " in caplog.text
    assert not (job.path / "log.txt").exists()


def test_what_a_run_prints_is_in_its_log_attempt_after_attempt(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        os.write(1, b"hello\n")
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(monkeypatch, 3, end)
    made(job, tmp_path / "s", monkeypatch)
    first, *printed = (job.path / "log.txt").read_text().splitlines()
    assert first.startswith("--- attempt of 20")
    assert first.endswith(f" UTC, on {socket.gethostname()} by slurm 16_0")
    assert printed == ["hello", f"--- interrupted: {TAKEN}"]


def test_a_log_that_cannot_be_opened_fails_no_run(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job.path / "log.txt").mkdir(parents=True)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert made(job, tmp_path / "s", monkeypatch)[-1] == Ended(Status.INTERRUPTED, TAKEN)


def test_gained_is_a_step_that_was_kept(job: Job) -> None:
    assert not cell.gained(job.path)


def test_steps_are_told_now_and_then_and_half_a_line_is_not_read(tmp_path: Path) -> None:
    place, spot = Folder(tmp_path), Spot(1, 0)
    place.path.mkdir()
    tell = cell.Teller(place.events(spot))
    for step in range(1, 100):
        tell(Step(step, None))
        tell(Progress("score", step, 100))
    text, offset = place.news(spot, 0)
    assert text.count("\n") == 1
    with place.events(spot).open("a") as file:
        file.write('{"version": 1, "st')
    assert place.news(spot, offset) == ("", offset)


def test_the_code_that_is_handed_over_is_copied_once_and_keeps_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "a.py").write_text("A = 1")
    monkeypatch.setattr(code, "ROOT", package)
    monkeypatch.setattr(code, "git_state", lambda package: ("abc", True))
    first = code.copied(tmp_path / "s")
    assert (first / "package" / "a.py").read_text() == "A = 1"
    assert (first / "ablations" / "variants.toml").is_file()
    assert environment.git_state(first / "package") == ("abc", True)
    assert code.copied(tmp_path / "s") == first
    (package / "a.py").write_text("A = 2")
    second = code.copied(tmp_path / "s")
    assert second != first
    assert (first / "package" / "a.py").read_text() == "A = 1"


def test_no_file_of_the_package_is_left_out(tmp_path: Path) -> None:
    copy = code.copied(tmp_path) / registry.ROOT.name
    assert (copy / "config" / "presets.toml").is_file()
    assert (copy / "execution" / "engines" / "_slurm" / "cell.py").is_file()
    assert not [*copy.rglob("*.pyc")]
