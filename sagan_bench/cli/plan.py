"""What ``ablate --dry-run`` prints: what a study would run, what that takes, what it could see."""

import json
import shlex
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from sagan_bench.cli.console import say, shown
from sagan_bench.cli.running import Where
from sagan_bench.cli.tables import changes, duration, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.execution.slots import Slot
    from sagan_bench.experiments.foreseeing import Expected
    from sagan_bench.experiments.grid import GridPoint, Plan


def _seconds_per_flop(planned: "Plan", slot: "Slot") -> float:
    """Return what a step of the first run takes in a slot, over its FLOPs.

    Runs that share a GPU take as long as they would one after the other.
    """
    import torch

    from sagan_bench.core import precision, system
    from sagan_bench.training.timing import seconds_per_flop

    config = planned.points[0].ours
    precision.use(config.training.precision)
    torch.set_num_threads(slot.threads)
    device = system.open_device(slot.device)
    with system.memory_for("timing a step", device):
        alone = seconds_per_flop(config, device)
    return alone if slot.device == "cpu" else alone * slot.shared_by


STATES: dict[str | None, str] = {
    None: "new",
    "interrupted": "resumable",
    "running": "running",
    "finished": "done",
    "diverged": "diverged",
    "failed": "failed",
}
"""The status of a run -> what a plan calls it."""


def print_plan(
    planned: "Plan", where: Where, *, measure: bool, spread: float | None, as_json: bool
) -> None:
    """Print what a study would run, what that takes, and what it could see.

    Args:
        planned: the study.
        where: runs would be made.
        measure: time a step here.
        spread: standard deviation of a variant's runs; else that of an earlier study, if any is.
        as_json: for programs.

    Raises:
        UserError: there is nothing to measure, or too little memory.
    """
    from sagan_bench.experiments import foreseeing

    settings = where.profile.settings
    shared = where.slots(len(planned.missing if settings else planned.points))
    if measure and planned.manifest.study.command is not None:
        raise UserError("--measure times a step of runs that this package makes; leave it out")
    per_flop = _seconds_per_flop(planned, shared[0]) if measure else None
    expected = foreseeing.foreseen(planned, spread, per_flop)
    if as_json:
        script = settings.preview(planned.folder, len(planned.missing)) if settings else None
        _print_json(planned, len(shared), per_flop, expected, script)
        return
    study, missing = planned.manifest.study, planned.missing
    say(f"{study.name}: {study.question}")
    _print_table(planned)
    for name, words in _own_variants(planned).items():
        say(f"{name}: {words}")
    _print_costs(planned, len(shared), per_flop, on_cluster=settings is not None)
    _print_expected(expected, planned, len(shared))
    if settings:
        say("script:")
        print(shown(settings.preview(planned.folder, len(missing)), lines=True))
    for point in missing if study.command is not None else ():
        say(_command_line(point))


def _print_costs(planned: "Plan", jobs: int, per_flop: float | None, *, on_cluster: bool) -> None:
    """Print how many cells there are to run, and what they take with so many at a time."""
    left = planned.seconds_left(jobs, per_flop)
    unknown = "unknown until a cell is finished; --measure times a step"
    time_left = unknown if left is None else duration(left)
    if left and per_flop and not any(point.status == "finished" for point in planned.points):
        alone = (planned.seconds_left(1, per_flop) or 0) / 3600
        time_left = f"{time_left}, {alone:,.1f} device-hours by a step timed here, without scoring"
    say(f"cells:  {len(planned.missing)} of {len(planned.points)} to run, in {planned.folder}")
    print(f"time:   {time_left} (with {jobs} at a time)")
    if on_cluster:
        in_all = planned.seconds_left(1, per_flop)
        hours = unknown if in_all is None else f"{in_all / 3600:,.1f} hours in all"
        print(f"device: {hours}")
    if planned.manifest.study.command is None:
        print(f"disk:   about {planned.disk_bytes() / 2**20:.0f} MiB")


def _print_expected(expected: "Expected | None", planned: "Plan", jobs: int) -> None:
    """Print what could be seen after so many seeds, and what they would take."""
    if expected is None:
        say("could see: unknown without a spread; --spread SD, or a study of the same data here")
        return
    say(
        f"could see, with chance 0.8 at a look, of {expected.metric} whose runs have the standard "
        f"deviation {expected.spread:.3g} ({expected.origin}):"
    )
    rows = [
        [
            f"{sight.n}",
            f"{sight.price:.4f}",
            f"{sight.claimed:.3g}",
            f"{sight.same:.3g}",
            f"{sight.n * len(planned.manifest.study.all_variants)}",
            *("—" if hours is None else f"{h:.2g}" for h in ((hours or 0) / jobs, hours or 0)),
        ]
        for sight, hours in zip(expected.sights, expected.device_hours, strict=True)
    ]
    header = ("seeds a side", "level", "smallest difference claimed", "no difference within")
    ends = ("cells at most", f"hours, {jobs} at a time", "device-hours")
    print_table("", (*header, *ends), rows)


def _own_variants(planned: "Plan") -> dict[str, str]:
    """Return what the variants of the study's own are, in words."""
    from sagan_bench.config.meanings import sentence
    from sagan_bench.config.variants import VARIANTS

    names = planned.manifest.study.names
    return {name: sentence(table) for name, table in names.get(VARIANTS, {}).items()}


def _command_line(point: "GridPoint") -> str:
    """Return the command of a run that another program makes, as a shell takes it."""
    from sagan_bench.runs.command import Command

    words = point.config.words(point.path) if isinstance(point.config, Command) else []
    return shlex.join(words)


def _print_table(planned: "Plan") -> None:
    study, differences = planned.manifest.study, planned.differences()
    baselines = dict(study.pairs)
    counts = Counter((point.variant, STATES[point.status]) for point in planned.points)
    to_run = Counter(point.variant for point in planned.missing)
    rows = []
    for variant in study.all_variants:
        states = [str(counts[variant, state] or "") for state in STATES.values()]
        apart = ""
        if variant in baselines:
            apart = f"{baselines[variant]}: {changes(differences[variant])}"
        rows.append([variant, *states, str(to_run[variant]), apart])
    print_table("", ("variant", *STATES.values(), "to run", "against"), rows)


def _print_json(
    planned: "Plan",
    jobs: int,
    per_flop: float | None,
    expected: "Expected | None",
    script: str | None = None,
) -> None:
    study, to_run = planned.manifest.study, {point.id for point in planned.missing}
    plan = {
        "study": study.name,
        "question": study.question,
        "folder": str(planned.folder),
        "cells": [
            {"id": point.id, "state": STATES[point.status], "to_run": point.id in to_run}
            | ({"command": _command_line(point)} if study.command is not None else {})
            for point in planned.points
        ],
        **({"variants": own} if (own := _own_variants(planned)) else {}),
        "differences": planned.differences(),
        "seconds_left": planned.seconds_left(jobs, per_flop),
        "seconds_per_flop": per_flop,
        "disk_bytes": planned.disk_bytes(),
        "could_see": expected and asdict(expected),
        **({"script": script} if script else {}),
    }
    print(json.dumps(plan, indent=2))
