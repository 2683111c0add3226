"""What tests of SLURM share: a pretended SLURM on the path, and runs that are pretended too."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sagan_bench.config.schema import Host
from sagan_bench.execution import code, errands
from sagan_bench.execution.engine import Ended, Engine, Event, Job, Place
from sagan_bench.execution.engines import slurm
from sagan_bench.execution.engines._slurm import errand
from sagan_bench.execution.engines._slurm.settings import Settings
from sagan_bench.execution.engines.slurm import Slurm
from sagan_bench.execution.errands import Answer
from sagan_bench.runs.command import Command
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Record

FAKES = Path(__file__).parent / "fakes"
PROGRAM = Program(source="true {seed} {out}", better={"score": "higher"})
TIME = {"time": "10"}
HOST = Host(bf16=True, extractor="efficientnet-lite0", tf32=True)
"""What nodes offer."""


class Courses:
    """Runs pretended: what each attempt at them does stands in a file of a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def answers(self, **fields: Any) -> None:
        """Put down what a node answers to errands."""
        answer = replace(Answer("n1", errands.versions(), host=HOST), **fields)
        (self.home / "answer.json").write_text(json.dumps(asdict(answer)))

    def fails(self, code: int) -> None:
        """Have errands end with an exit code, without an answer."""
        (self.home / "answer.exit").write_text(str(code))

    def jobs(self, folder: Path, count: int = 1, **courses: Sequence[Sequence[str]]) -> list[Job]:
        """Return runs s0, s1, ... of a command, and put down what each attempt at them does."""
        jobs = []
        for seed in range(count):
            command = Command(PROGRAM, "v", seed)
            jobs.append(Job(f"s{seed}", command, folder / f"s{seed}", command.digest))
        self.put_down(Command(PROGRAM, "v", 0).record(folder), courses)
        return jobs

    def put_down(self, record: Record, courses: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Put down what runs leave, but for how far they came, and what each attempt does."""
        known = {"courses": courses, "record": record.model_dump(mode="json")}
        (self.home / "courses.json").write_text(json.dumps(known))


class PretendedSlurm(Courses):
    """A pretended cluster, in a folder."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.python = str(home / "bin" / "python")
        (home / "bin").mkdir(parents=True)
        quick = f"exec {sys.executable} -I -S"
        for name in ("sbatch", "squeue", "scancel", "scontrol"):
            self._program(name, f'{quick} {FAKES}/slurm.py {name} "$@"')
        self._program("python", f'{quick} {FAKES}/cell.py "$@"')

    def _program(self, name: str, line: str) -> None:
        file = self.home / "bin" / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def engine(
        self, folder: Path, *, runs: int = 100, jobs: int | None = None, **options: Any
    ) -> Slurm:
        """Return the engine of an experiment in a folder."""
        settings = Settings(sbatch={**TIME, **options}, python=self.python)
        return Slurm(Place(folder, "cpu", jobs, runs), settings)

    def say(self, program: str, *answers: str | None) -> None:
        """Have a program fail with an answer at its next calls; None leaves a call alone."""
        file = self.home / "say.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(said | {program: list(answers)}))

    def calls(self, program: str) -> list[list[str]]:
        """Return the words of all calls of a program."""
        file = self.home / "calls"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return [words for name, *words in lines if name == program]

    def hold(self, on: bool = True) -> None:
        """Let nothing begin."""
        if on:
            (self.home / "hold").touch()
        else:
            (self.home / "hold").unlink(missing_ok=True)

    def element(self, name: str) -> dict[str, Any]:
        """Return what the cluster knows of an element."""
        known: dict[str, Any] = json.loads((self.home / f"{name}.json").read_text())
        return known

    def change(self, name: str, **values: Any) -> None:
        """Have the cluster know something else of an element."""
        file = self.home / f"{name}.json"
        file.write_text(json.dumps(self.element(name) | values))

    def signal(self, name: str, number: signal.Signals, **values: Any) -> None:
        """Send a signal to the process of an element, which then ends as ``values`` say."""
        self.change(name, **values)
        os.kill(int((self.home / f"{name}.pid").read_text()), number)

    def end_all(self) -> None:
        """End all processes."""
        for file in self.home.glob("*.pid"):
            if file.read_text().strip() and not file.with_suffix(".rc").exists():
                with suppress(ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGKILL)


def poll_until(
    engine: Engine, done: Callable[[list[Event]], object], seconds: float = 20
) -> list[Event]:
    """Poll until that is so, and return all events."""
    events, deadline = list[Event](), time.monotonic() + seconds
    while not done(events):
        assert time.monotonic() < deadline, events
        events += engine.poll(0.02)
    return events


def ended(count: int) -> Callable[[list[Event]], bool]:
    """Return what says whether so many runs are over."""
    return lambda events: sum(isinstance(event.what, Ended) for event in events) >= count


def ends(events: Sequence[Event]) -> dict[str, Ended]:
    """Return how each run ended."""
    return {event.job: event.what for event in events if isinstance(event.what, Ended)}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedSlurm]:
    """A pretended SLURM on the path, of which engines take notice at once."""
    pretended = PretendedSlurm(tmp_path / "cluster")
    monkeypatch.setenv("FAKE_SLURM", str(pretended.home))
    monkeypatch.setenv("PATH", f"{pretended.home / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(errand, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(code, "copied", lambda folder: folder / "code")
    yield pretended
    pretended.end_all()
