"""The verb ``ablate``: run a study's missing cells, and say what can be claimed."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from sagan_bench.cli.compare import print_findings
from sagan_bench.cli.console import say, shown
from sagan_bench.cli.options import program
from sagan_bench.cli.signals import exit_stopped, stopping
from sagan_bench.cli.tables import changes, duration, number, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sagan_bench.execution.engine import Slot
    from sagan_bench.experiments.ablation import Cell, Plan, State
    from sagan_bench.experiments.study import Study

SOME_FAILED = 3
SECONDS_BETWEEN_LINES = 30.0


def ablate(
    study: Annotated[str, typer.Argument(help="A study's name or TOML file; see: list studies")] = (
        "quick"
    ),
    data: Annotated[str | None, typer.Option(help="Put the question to other images")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds to run, e.g. 0-4")] = None,
    only: Annotated[str | None, typer.Option(help="Variants to run, e.g. sagan,wider")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time [default: one a GPU, or a core]")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Generator updates of each cell")] = None,
    preset: Annotated[str | None, typer.Option(help="Begin with this preset instead")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder below --runs [default: the study's]")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto (every GPU), cpu, cuda:N")] = "auto",
    in_process: Annotated[bool, typer.Option(help="Run cells in this process", hidden=True)] = (
        False
    ),
    retry_failed: Annotated[bool, typer.Option(help="Run again what failed")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --dry-run: time a step here, data or not")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout")] = False,
) -> None:
    """Run a study: every variant at every seed, and what the comparison says.

    The same command again runs only what is missing.
    """
    from sagan_bench.experiments import ablation
    from sagan_bench.experiments.study import parse_seeds
    from sagan_bench.runs.run_directory import tidy

    if measure and not dry_run:
        raise UserError("--measure says what a study would cost; add --dry-run")
    asked = _asked(study, data, steps, preset, sets or [])
    folder = ablation.folder_of(asked, runs, name)
    planned = ablation.plan(
        asked,
        folder,
        _host(device),
        seeds=parse_seeds(seeds) if seeds else (),
        only=tuple(only.split(",")) if only else (),
        retry=retry_failed,
        without_data=dry_run and measure,
    )
    if dry_run:
        from sagan_bench.execution.engine import slots

        shared = slots(jobs, device, len(planned.cells))
        per_flop = _seconds_per_flop(planned, shared[0]) if measure else None
        _print_plan(planned, len(shared), as_json, per_flop)
        return
    if planned.missing:
        planned = _run(planned, jobs, device, in_process)
    tidy(planned.folder)
    _conclude(planned, as_json)


def _asked(
    study: str, data: str | None, steps: int | None, preset: str | None, sets: list[str]
) -> "Study":
    from sagan_bench.config.layers import parse_set
    from sagan_bench.experiments.study import load

    settings: dict[str, Any] = dict(map(parse_set, sets))
    if data:
        settings["data.source"] = data
    if steps:
        settings["run.steps"] = steps
    return load(study, set=settings, **({"preset": preset} if preset else {}))


def _host(device: str) -> Callable[[Any], Any]:
    def ask(config: Any) -> Any:
        from sagan_bench.config.layers import override
        from sagan_bench.session.capabilities import capabilities

        return capabilities(override(config, {"run.device": ("--device", device)}))

    return ask


def _run(planned: "Plan", jobs: int | None, device: str, in_process: bool) -> "Plan":
    """Run what is missing, and return the plan as it then stands."""
    from sagan_bench.cli.bars import Bars
    from sagan_bench.execution.engine import Engine, Inline, Processes, slots
    from sagan_bench.experiments import ablation, driver
    from sagan_bench.session.events import Stopped

    with stopping() as stop, driver.held(planned.folder):
        with Bars() as bars:

            def progress(done: int, total: int) -> None:
                bars.advance("images", done, total)
                if reason := stop():
                    raise Stopped(reason, None)

            try:
                planned = ablation.with_data(planned, progress)
            except Stopped as stopped:
                exit_stopped(str(stopped))
        shared = slots(jobs, device, len(planned.cells))
        _announce(planned, len(shared))
        engine: Engine = Inline(shared[0], stop) if in_process else Processes(shared)
        try:
            with Grid(planned) as grid:
                ablation.run(planned, engine, grid, stop)
        except Stopped as stopped:
            exit_stopped(str(stopped), stopped.path)
        finally:
            engine.close()
    return planned.refreshed()


def _announce(planned: "Plan", jobs: int) -> None:
    study = planned.memory.study
    say(f"{study.name}: {study.question}", error=True)
    for variant, lines in _differences(planned).items():
        say(f"  {variant} against {dict(study.pairs)[variant]}: {lines}", error=True)
    left = planned.seconds_left(jobs)
    about = f", about {duration(left)}" if left else ""
    print(
        f"{len(planned.missing)} of {len(planned.cells)} cells to run, {jobs} at a time{about}",
        file=sys.stderr,
    )


def _differences(planned: "Plan") -> dict[str, str]:
    return {variant: changes(differs) for variant, differs in planned.differences().items()}


def _seconds_per_flop(planned: "Plan", slot: "Slot") -> float:
    """Return what a step of the first cell takes in a slot, over its FLOPs.

    Cells that share a GPU take as long as they would one after the other.
    """
    import torch

    from sagan_bench.core import precision, system
    from sagan_bench.training.timing import seconds_per_flop

    config = planned.cells[0].config
    precision.use(config.training.precision)
    torch.set_num_threads(slot.threads)
    device = system.open_device(slot.device)
    with system.memory_for("timing a step", device):
        alone = seconds_per_flop(config, device)
    return alone if slot.device == "cpu" else alone * slot.shared_by


def _print_plan(planned: "Plan", jobs: int, as_json: bool, per_flop: float | None) -> None:
    study, left = planned.memory.study, planned.seconds_left(jobs, per_flop)
    if as_json:
        plan = {
            "study": study.name,
            "question": study.question,
            "folder": str(planned.folder),
            "cells": [
                {"id": cell.id, "state": cell.state, "to_run": cell in planned.missing}
                for cell in planned.cells
            ],
            "differences": planned.differences(),
            "seconds_left": left,
            "seconds_per_flop": per_flop,
            "disk_bytes": planned.disk_bytes(),
        }
        print(json.dumps(plan, indent=2))
        return
    say(f"{study.name}: {study.question}")
    differences, baselines = _differences(planned), dict(study.pairs)
    missing = planned.missing
    rows = []
    for variant in study.all_variants:
        cells = [cell for cell in planned.cells if cell.variant == variant]
        states = [[cell.state for cell in cells].count(state) for state in STATES]
        to_run = str(sum(cell in missing for cell in cells))
        apart = f"{baselines[variant]}: {differences[variant]}" if variant in baselines else ""
        rows.append([variant, *(str(count or "") for count in states), to_run, apart])
    print_table("", ("variant", *STATES, "to run", "against"), rows)
    unknown = "unknown until a cell is finished; --measure times a step"
    time_left = unknown if left is None else duration(left)
    if left and per_flop and not any(cell.state == "done" for cell in planned.cells):
        alone = (planned.seconds_left(1, per_flop) or 0) / 3600
        time_left = f"{time_left}, {alone:,.1f} device-hours by a step timed here, without scoring"
    say(f"cells:  {len(missing)} of {len(planned.cells)} to run, in {planned.folder}")
    print(f"time:   {time_left} (with {jobs} at a time)")
    print(f"disk:   about {planned.disk_bytes() / 2**20:.0f} MiB")


STATES: "tuple[State, ...]" = ("new", "resumable", "running", "done", "diverged", "failed")


GO_ON = {
    "resumable": "what was interrupted goes on with the same command",
    "failed": "what failed is tried again with --retry-failed",
}
"""By the state of a cell: how it may yet get a result."""


def _conclude(planned: "Plan", as_json: bool) -> None:
    """Print what can be claimed, and end with 3 if a cell has failed, diverged or stopped."""
    from sagan_bench.experiments.findings import of_study
    from sagan_bench.report.text import findings

    found = findings(of_study(planned.folder))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_findings(found)
    bad = [cell for cell in planned.cells if cell.state in ("failed", "diverged", "resumable")]
    for cell in bad:
        told = "interrupted" if cell.state == "resumable" else cell.state
        say(f"{told}: {cell.path}: {cell.reason}", error=True)
    states = {cell.state for cell in bad}
    for advice in (text for state, text in GO_ON.items() if state in states):
        say(advice, error=True)
    if not as_json:
        say(f"study:   {planned.folder}")
        say(f"next:    {program()} compare {planned.folder}")
    if bad:
        raise typer.Exit(SOME_FAILED)


class Grid:
    """How far every cell is, on stderr: a table of variants and seeds, or lines off a terminal."""

    def __init__(self, planned: "Plan") -> None:
        from rich.console import Console
        from rich.live import Live

        self.planned = planned
        self.metric = planned.memory.study.measure.metric
        self.texts = {cell.id: self._of_record(cell) for cell in planned.cells}
        self.scores: dict[str, str] = {}
        self.to_run = self.left = len(planned.missing)
        self.began = self.last_line = time.monotonic()
        console = Console(stderr=True, highlight=False)
        self.live = Live(
            get_renderable=self._table, console=console, refresh_per_second=4, transient=False
        )
        self.on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self.on_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.on_terminal:
            self.live.stop()

    def __call__(self, cell: "Cell", what: Any) -> None:
        """Take notice of what happened in a cell; None: it begins."""
        from sagan_bench.execution.engine import Ended
        from sagan_bench.session.events import Progress, Scored
        from sagan_bench.training.loop import Diverged, Step

        if what is None:
            self.texts[cell.id] = "starting"
        elif isinstance(what, Step):
            self.texts[cell.id] = f"{what.step / cell.config.run.steps:.0%}"
        elif isinstance(what, Progress) and what.phase == "score":
            self.texts[cell.id] = f"scoring {what.done / max(what.total, 1):.0%}"
        elif isinstance(what, Diverged):
            self.texts[cell.id] = "diverged"
        elif isinstance(what, Scored) and what.score.final and what.score.weights == "ema":
            if self.metric in what.score.metrics:
                self.scores[cell.id] = number(what.score.metrics[self.metric])
        elif isinstance(what, Ended):
            self._ended(cell, what)
        self._line()

    def _ended(self, cell: "Cell", what: Any) -> None:
        self.left -= 1
        finished = what.status == "finished"
        self.texts[cell.id] = self.scores.get(cell.id, "done") if finished else what.status
        if not self.on_terminal or what.status == "failed":
            done = f"{self.to_run - self.left}/{self.to_run}"
            text = f"{self.metric} {self.texts[cell.id]}" if finished else what.reason
            told = shown(f"{done} {cell.id}: {what.status}, {text}")
            self.live.console.print(told, markup=False)

    def _line(self) -> None:
        now = time.monotonic()
        if self.on_terminal or now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        under_way = [f"{name} {text}" for name, text in self.texts.items() if "%" in text]
        if under_way:
            say(f"{self.left} of {self.to_run} left: {', '.join(under_way)}", error=True)

    def _of_record(self, cell: "Cell") -> str:
        if cell.state != "done" or cell.record is None:
            return "" if cell.state in ("new", "running") else cell.state
        finals = (one for one in cell.record.scores if one.final and one.weights == "ema")
        values = (one.metrics[self.metric] for one in finals if self.metric in one.metrics)
        return next(map(number, values), "done")

    def _table(self) -> "RenderableType":
        from rich.table import Table

        study = self.planned.memory.study
        elapsed = timedelta(seconds=round(time.monotonic() - self.began))
        done = self.to_run - self.left
        table = Table(
            title=_cell(f"{study.name}: {self.metric} by variant and seed"),
            caption=f"{done}/{self.to_run} cells, {elapsed} elapsed",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("variant", no_wrap=True)
        for seed in study.seeds:
            table.add_column(str(seed), justify="right", no_wrap=True)
        for variant in study.all_variants:
            texts = (_cell(self.texts.get(f"{variant}-s{seed}", "")) for seed in study.seeds)
            table.add_row(_cell(variant), *texts)
        return table


def _cell(text: str) -> str:
    from rich.markup import escape

    return escape(shown(text))
