"""The engines by name: those that are shipped, and one of a user."""

import json
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.core.registry import ENGINES
from sagan_bench.execution.attempt import attempt, placed
from sagan_bench.execution.engine import Event, Job
from sagan_bench.execution.slots import Slot
from sagan_bench.session.events import Stop

Out = pytest.CaptureFixture[str]


@pytest.fixture
def threads() -> Iterator[str]:
    """An engine of a user, for one test: every run in a thread of this process."""

    @ENGINES.register("threads")
    class Threads:
        def __init__(self, slots: Sequence[Slot], stop: Stop) -> None:
            self.slots, self.stop = slots, stop
            self.free = 1
            self.pool = ThreadPoolExecutor(1)
            self.events: queue.Queue[Event] = queue.Queue()

        def submit(self, job: Job) -> None:
            self.free -= 1
            self.pool.submit(self._make, placed(job, self.slots[0]))

        def _make(self, job: Job) -> None:
            ended = attempt(job, lambda what: self.events.put(Event(job.id, what)), self.stop)
            self.free += 1
            self.events.put(Event(job.id, ended))

        def poll(self, timeout_sec: float) -> list[Event]:
            try:
                return [self.events.get(timeout=timeout_sec)]
            except queue.Empty:
                return []

        def cancel(self, job: str, why: str) -> None:
            """``stop`` says so too."""

        def close(self) -> None:
            self.pool.shutdown()

    yield "threads"
    del ENGINES._known["threads"]


def ablate(folder: Path, *more: str) -> int:
    (folder / "small.toml").write_text(FILE)
    sets = [part for text in SMALL for part in ("--set", text)]
    with pytest.raises(SystemExit) as exit_:
        cli.main(["ablate", str(folder / "small.toml"), *sets, "--seeds", "0", *more])
    return int(exit_.value.code or 0)


def test_an_engine_of_a_user_runs_a_study(threads: str, tmp_path: Path, capsys: Out) -> None:
    assert ablate(tmp_path, "--engine", threads, "--json") == 0
    shown = capsys.readouterr()
    assert "2/2 sagan-s0: finished, twin_rate" in shown.err
    assert len(json.loads(shown.out)["runs"]) == 2


def test_an_unknown_engine_is_refused_with_the_closest(tmp_path: Path, capsys: Out) -> None:
    assert ablate(tmp_path, "--engine", "proceses") == cli.USAGE
    assert "--engine proceses: did you mean 'processes'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_shipped_engines_are_known_without_any_being_read() -> None:
    assert {"inline", "processes"} <= set(ENGINES)
    assert {ENGINES[name].name for name in ("inline", "processes")} == {"inline", "processes"}
