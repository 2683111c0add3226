"""A study whose driver is killed three times, a node twice, and that is preempted three times.

    python benchmarks/storm.py slurm

The same study is then run undisturbed by processes of this machine, and the two must be equal: bits
of the weights, scores, rows of measurements.  Prints a line of JSON; ends with 1 if anything was
lost, differs, or was run twice to its end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from storms import BLOWS, Place

from sagan_bench.core import cpu
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.rows import read_rows
from sagan_bench.runs.run_directory import read_now
from sagan_bench.training import checkpoint

ROOT = Path(__file__).parents[1]
PLACES = {"processes": "Machine", "slurm": "Slurm", "ray": "Ray"}
STUDY = """
question = "Is anything lost?"
baseline = "no-attention"
variants = ["sagan"]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
[set]
"model.width" = 8
"model.z_dim" = 8
"training.batch_size" = 4
"run.log_every" = 10
"run.checkpoint_every" = 50
"run.sample_every" = 500
"data.train_images" = 48
"data.test_images" = 16
"evaluation.n_real" = 24
"evaluation.n_fake" = 10
"evaluation.n_floor" = 12
"evaluation.bn_batches" = 2
"evaluation.isc_splits" = 2
"evaluation.kid_subsets" = 3
"evaluation.kid_subset_size" = 8
"""
TAKES_TIME = {"images_per_sec", "peak_memory_gib"}
"""Columns of measurements that no two runs share."""
ROWS_BETWEEN = 12
"""Rows that runs must write after a blow, before the next."""


class Driver:
    """The command, given again whenever it has ended and the study is not finished."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.times = folder, options, 0
        self.begin()

    def begin(self) -> None:
        """Give the command."""
        self.times += 1
        words = [sys.executable, str(ROOT / "cli.py"), "ablate", "storm.toml", *self.options]
        log = (self.folder / "driver.log").open("a")
        self.process = subprocess.Popen(
            words, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def go_on(self) -> bool:
        """Give the command again if it was ended; return whether the study is not finished."""
        code = self.process.poll()
        if code == 0:
            return False
        if code is not None:
            self.begin()
        return True

    def finish(self) -> None:
        """Wait until the study is finished."""
        while self.go_on():
            time.sleep(0.5)


def rows(study: Path) -> dict[Path, int]:
    """Return how many bytes of measurements each run has."""
    return {file: file.stat().st_size for file in study.glob("*/metrics.jsonl")}


def wait_for_progress(study: Path, driver: Driver, finished: float) -> None:
    """Wait until so many runs are finished, and the others have written a few rows from here on.

    Raises:
        RuntimeError: the study was finished before.
    """
    grown, before = 0, rows(study)
    while grown < ROWS_BETWEEN or len([*study.glob("*/weights.pt")]) < finished:
        if not driver.go_on():
            raise RuntimeError("the study was finished before all blows had fallen: more --steps")
        time.sleep(0.3)
        now = rows(study)
        grown += sum(size > before.get(file, 0) for file, size in now.items())
        before = now


def strike(blow: str, place: Place, driver: Driver) -> str:
    """Let one blow fall, and say whom it hit."""
    if blow == "driver":
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.process.wait()
        return str(driver.process.pid)
    hit: str = getattr(place, blow)(driver.process.pid)
    return hit


def left(study: Path) -> dict[str, tuple[Path, Record]]:
    """Return the runs of a study by their directories' names."""
    return {path.name: (path, read_now(path)) for path in find_runs(study)}


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return what two studies differ in: weights, scores, measurements."""
    here, there = left(ours), left(theirs)
    if here.keys() != there.keys():
        return [f"runs: {sorted(here.keys() ^ there.keys())}"]
    return [
        f"{name}: {what}" for name in here for what in _of_run(*here[name], *there[name])
    ]  # fmt: skip


def _of_run(path: Path, record: Record, other_path: Path, other: Record) -> list[str]:
    said = [] if record.scores == other.scores else ["scores"]
    weights, others = (checkpoint.load(at / "weights.pt") for at in (path, other_path))
    for kind in ("ema", "raw"):
        if not all(torch.equal(value, others[kind][key]) for key, value in weights[kind].items()):
            said.append(f"{kind} weights")
    measured, measured_there = (
        [{key: value for key, value in row.items() if key not in TAKES_TIME} for row in read]
        for read in (
            read_rows(path, "metrics.jsonl", record),
            read_rows(other_path, "metrics.jsonl", other),
        )
    )
    return said if measured == measured_there else [*said, "measurements"]


def twice(record: Record) -> bool:
    """Return whether a run was made more than once to its end."""
    return sum(attempt.outcome is Status.FINISHED for attempt in record.attempts) > 1


def lost(record: Record) -> bool:
    """Return whether an attempt began at an earlier step than one before it had kept."""
    kept = 0
    for attempt in record.attempts:
        if attempt.from_step < kept:
            return True
        kept = max(kept, attempt.from_step, attempt.to_step or 0)
    return False


def main(
    engine: Annotated[Literal["processes", "slurm", "ray"], typer.Argument()],
    cells: Annotated[int, typer.Option(min=2, help="Half of them without attention")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Of each cell")] = 3000,
    keep: Annotated[Path | None, typer.Option(help="Folder for what it leaves")] = None,
) -> None:
    """Run the storm, then the same study undisturbed, and print what was seen."""
    folder = (keep or Path(tempfile.mkdtemp(prefix="storm-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "storm.toml").write_text(f"seeds = {list(range(cells // 2))}\n{STUDY}\n"
                                       f'"run.steps" = {steps}\n')  # fmt: skip
    place: Place = getattr(import_module(f"storms.{engine}"), PLACES[engine])()
    place.up(folder / "cluster")
    study, began, blows = folder / "runs" / "storm", time.monotonic(), []
    try:
        driver = Driver(folder, *place.options)
        for number, blow in enumerate(BLOWS):
            wait_for_progress(study, driver, finished=0.75 * cells * number / len(BLOWS))
            hit = strike(blow, place, driver)
            blows.append(f"{time.monotonic() - began:.0f} s: {blow} {hit}")
            print(blows[-1], file=sys.stderr, flush=True)
        driver.finish()
        took = time.monotonic() - began
    finally:
        place.down()
    Driver(folder, "--jobs", str(cpu.cores()), "--name", "calm").finish()
    records = {name: record for name, (_, record) in left(study).items()}
    said: dict[str, Any] = {
        "engine": engine, "cells": cells, "steps": steps, "minutes": round(took / 60, 1),
        "drivers": driver.times, "blows": blows,
        "finished": sum(record.status is Status.FINISHED for record in records.values()),
        "attempts": sum(len(record.attempts) for record in records.values()),
        "lost_steps_that_were_kept": [name for name, record in records.items() if lost(record)],
        "run_twice_to_the_end": [name for name, record in records.items() if twice(record)],
        "differs": differences(study, study.with_name("calm")),
        "cpu": cpu.name(), "cores": cpu.cores(), "folder": str(folder),
    }  # fmt: skip
    print(json.dumps(said, indent=2))
    faults = ("lost_steps_that_were_kept", "run_twice_to_the_end", "differs")
    whole = said["finished"] == cells == len(records)
    raise typer.Exit(0 if whole and not any(said[fault] for fault in faults) else 1)


if __name__ == "__main__":
    typer.run(main)
