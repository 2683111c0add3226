"""What a run that goes on keeps of its attempts before: the peak of memory, and its threads."""

from pathlib import Path

import pytest
import torch
from example_runs import SMALL

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.core import cpu, system
from sagan_bench.runs import records
from sagan_bench.runs.records import Record
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.training.loop import Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")


def attempted(path: Path, *sets: str) -> Record:
    """The record of a run that is asked to stop after one more step."""
    seen: list[object] = []

    def stop() -> str | None:
        return "interrupted" if any(isinstance(one, Step) for one in seen) else None

    config = resolve(HOST, sets=[*SMALL, *sets]).config
    with pytest.raises(Stopped):
        experiment.run(config, out=path, watch=seen.append, stop=stop)
    return records.read(path)


def test_the_peak_of_memory_is_the_largest_of_all_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for peak in (2.0, 9.0, 3.0):
        monkeypatch.setattr(system, "peak_memory_gib", lambda device, peak=peak: peak)
        found.append(attempted(tmp_path / "run").cost.peak_memory_gib)
    assert found == [2.0, 9.0, 9.0]


@pytest.mark.parametrize(("processes", "threads"), [(None, 7), (2, 5)])
def test_threads_are_kept_by_as_many_processes_only(
    processes: int | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)  # more than cores would be slow
    monkeypatch.setattr(cpu, "cores", lambda: 5)
    left = attempted(tmp_path / "run", "run.threads=7")
    (attempt,) = left.attempts
    assert (attempt.threads, attempt.processes) == (7, 1)
    led = {"attempts": (attempt.model_copy(update={"processes": processes}),)}
    (tmp_path / "run" / "record.json").write_bytes(left.model_copy(update=led).to_json())
    record = attempted(tmp_path / "run", "run.threads=none")
    assert [one.threads for one in record.attempts] == asked == [7, threads]
    assert [one.processes for one in record.attempts] == [processes, 1]
