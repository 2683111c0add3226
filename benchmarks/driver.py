"""What a study of many cells costs its driver: CPU seconds of each stage, with no cell computed.

    python benchmarks/driver.py --cells 1000 --cells 10000

Two variants; the engine does nothing, and records are made by hand (tests/example_reports.py).
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer

from sagan_bench.config.layers import parse_set
from sagan_bench.core import cpu
from sagan_bench.experiments import ablation, findings, studies
from sagan_bench.experiments.grid import Plan

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from example_reports import STEPS, leave_run
from example_studies import Nothing, here

PROGRAM = Path(__file__).parents[1] / "cli.py"
SETS = (f"run.steps={STEPS}", "run.eval_images=512", "model.width=8")
SLOTS = 64


class Stages:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Take the time of a stage in this process."""
        began = time.process_time()
        yield
        self.seconds[stage] = round(time.process_time() - began, 2)

    def command(self, stage: str, *words: str) -> None:
        """Run the program and take its time."""
        before = _of_children()
        subprocess.run(
            [sys.executable, str(PROGRAM), *words],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.seconds[stage] = round(_of_children() - before, 2)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def planned(folder: Path, cells: int) -> Plan:
    """Return the plan of ``quick``'s two variants at as many seeds."""
    study = studies.load("quick", set=dict(map(parse_set, SETS)), seeds=tuple(range(cells // 2)))
    return ablation.plan(study, folder, here)


def leave(plan: Plan) -> None:
    """Leave the record of each cell, as if all were finished."""
    random = np.random.default_rng(0)
    with patch("os.fsync"):  # they need not outlive the machine
        for point in plan.points:
            value = float(np.clip(random.normal(0.4, 0.03), 0, 1))
            leave_run(point.path, point.ours, value, pictures=False)


def measured(cells: int) -> dict[str, Any]:
    """Return CPU seconds of the stages of a study of so many cells."""
    stages = Stages()
    with tempfile.TemporaryDirectory() as runs:
        folder = Path(runs) / "quick"
        with stages.of("plan"):
            plan = planned(folder, cells)
        with stages.of("with_data"):
            plan = ablation.with_data(plan)
        with stages.of("run"):
            ablation.run(plan, Nothing(SLOTS), lambda point, what: None, lambda: None)
        command = ["ablate", "quick", "--runs", runs, "--seeds", f"0-{cells // 2 - 1}"]
        command += [part for text in SETS for part in ("--set", text)]
        stages.command("dry_run_begun", *command, "--dry-run")
        stages.command("dry_run_begun_json", *command, "--dry-run", "--json")
        leave(plan)
        with stages.of("plan_again"):
            again = planned(folder, cells)
        with stages.of("refreshed"):
            again.refreshed()
        with stages.of("of_study"):
            findings.of_study(folder)
        stages.command("ablate", *command)
        stages.command("dry_run", *command, "--dry-run")
        stages.command("dry_run_json", *command, "--dry-run", "--json")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"cells": cells, **stages.seconds, "peak_mib": peak, "cores": cpu.cores()}


def main(cells: Annotated[list[int], typer.Option(min=2)]) -> None:
    """Print a line for each number of cells; the first is a warm-up of what is imported once."""
    for count in (10, *cells):
        print(json.dumps(measured(count)), flush=True)


if __name__ == "__main__":
    typer.run(main)
