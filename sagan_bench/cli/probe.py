"""The verb ``probe``: what a finished run's figures make of another map, at the same noise."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli.compare import place
from sagan_bench.cli.console import say
from sagan_bench.cli.options import Device, Json, RunOrStudy, Runs
from sagan_bench.cli.probed import print_probed
from sagan_bench.cli.signals import SOME_FAILED, stopping
from sagan_bench.cli.tables import duration, number, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.config.schema import RunConfig
    from sagan_bench.report.readings import Probed
    from sagan_bench.runs.probe import Arm, Outcome, Probe
    from sagan_bench.session.events import Watch

Wanted = Callable[["RunConfig"], "RunConfig"]


def probe(
    what: RunOrStudy,
    images: Annotated[int, typer.Option(min=4, help="Generated images, of each arm")] = 512,
    metrics: Annotated[
        str, typer.Option(help="Metrics with an extractor, e.g. fid,kid_mean \\[default: none]")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Measure what is there already")] = False,
    device: Device = "auto",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Change what each block of finished weights does, and measure what depends on its map.

    Nothing is trained; what comes of it is probe.json in the run's folder (docs/probe.md).
    """
    from sagan_bench.config.layers import override
    from sagan_bench.runs.records import RECORD

    path, names = place(what, runs), [name.strip() for name in metrics.split(",") if name.strip()]

    def wanted(stored: "RunConfig") -> "RunConfig":
        return override(stored, {"run.device": ("--device", device)})

    probing = _run if (path / RECORD).exists() else _runs
    probing(path, wanted, images, names, again, as_json)


def _run(
    path: Path, wanted: Wanted, images: int, metrics: Sequence[str], again: bool, as_json: bool
) -> None:
    from sagan_bench.cli.progress import View
    from sagan_bench.runs import records
    from sagan_bench.runs.run import Run
    from sagan_bench.session import probing

    config = wanted(Run(path, records.read(path)).config)
    with stopping() as stop, View() as view:
        made, is_new = probing.probe(
            path, config, images=images, metrics=metrics, again=again, watch=view.watch, stop=stop
        )
    if as_json:
        print(json.dumps(made.model_dump(mode="json"), indent=2))
        return
    print_probe(made)
    where = f"{path / 'probe.json'}, in {duration(made.seconds)}"
    say(f"probed:  {where}" if is_new else f"was there: {where}; --again measures once more")


def _runs(
    folder: Path, wanted: Wanted, images: int, metrics: Sequence[str], again: bool, as_json: bool
) -> None:
    """Probe the runs of a folder; end with 3 if one cannot be."""
    from sagan_bench.cli.progress import View
    from sagan_bench.experiments import probing

    with stopping() as stop, View() as view:

        def follow(path: Path, number: int, count: int) -> "Watch":
            say(f"{number}/{count} {path.name}", error=True)
            view.phase_began.clear()
            return view.watch

        result = probing.probe(
            folder, wanted, follow, stop, images=images, metrics=metrics, again=again
        )
    failed = {str(path): why for path, why in result.failed.items()}
    together = _together(folder)
    if as_json:
        said = {
            "probes": {str(p): made.model_dump(mode="json") for p, made in result.probes.items()},
            "made": [str(path) for path in result.made],
            "without_block": [str(path) for path in result.without_block],
            "failed": failed,
            "together": together and asdict(together),
        }
        print(json.dumps(said, indent=2))
    else:
        rows = [_primary_row(path.name, made) for path, made in result.probes.items()]
        if rows:
            print_table("Each map by 'uniform' in G, the branch's RMS kept:", PRIMARY_HEADER, rows)
        none = f"; {len(result.without_block)} have no block" if result.without_block else ""
        there = len(result.probes) - len(result.made)
        say(f"probed:  {len(result.made)} runs; {there} were there{none}")
        print_probed(together)
    for path, why in failed.items():
        say(f"failed: {path}: {why}", error=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _together(folder: Path) -> "Probed | None":
    """Return what the probes of a study say together; None, and why, where there is no saying."""
    from sagan_bench.experiments.findings import of_study
    from sagan_bench.experiments.study import MEMORY
    from sagan_bench.report.findings import findings

    if not (folder / MEMORY).exists():
        return None
    try:
        return findings(of_study(folder)).probes
    except UserError as error:
        say(f"note: the probes say nothing together: {error}", error=True)
        return None


# --- The terminal ------------------------------------------------------------------------------

PRIMARY_HEADER = (
    "run", "metric", "untouched", "changed map", "sham", "excess", "excess, frozen", "pixels",
)  # fmt: skip
HEADER = (
    "network", "block", "map replaced by", "RMS", "figure", "sham", "excess", "excess, frozen",
    "pixels", "breaks most",
)  # fmt: skip
"""An excess is the figure less that of the sham: an effect counts as that."""


def print_probe(probe: "Probe") -> None:
    """Print every arm of a run's probe."""
    metric = metric_of(probe)
    untouched = probe.untouched.metrics.get(metric) if metric else None
    say(
        f"{probe.run}: {probe.images} images, {probe.weights} weights of step {probe.step}; "
        f"{metric or 'no metric without an extractor'} {number(untouched)} untouched"
        + (f", D ranks {number(probe.untouched.ranking)}" if probe.discriminator is None else "")
    )
    print_table("", HEADER, [_row(arm, metric) for arm in probe.arms], left=HEADER[:4])
    for block in probe.blocks:
        if block.reason:
            say(f"note: {block.network}.{block.name} by its branch alone: {block.reason}")
        if mass := block.mass:
            say(
                f"{block.network}.{block.name}: {number(mass.mass)} of what a shape takes in comes "
                f"from its twin; {number(mass.chance)} by the maps of other images"
            )
    if probe.discriminator:
        say(f"note: D was not probed: {probe.discriminator}")


def metric_of(probe: "Probe") -> str | None:
    """Return the metric that is shown: asked for, or that which leads; None if there is none."""
    from sagan_bench.evaluation.metrics import leading, ordered

    known = probe.untouched.metrics
    keys = [*probe.asked, *leading(), *ordered(known, theirs=False)]
    return next((key for key in keys if key in known), None)


def _row(arm: "Arm", metric: str | None) -> tuple[str, ...]:
    first = (arm.network, " + ".join(arm.blocks), arm.intervention, "kept" * arm.keeps_rms)
    if arm.applied is None:
        return (*first, "—", "—", "—", "—", "—", f"not made: {arm.reason}")
    changed = number(arm.applied.changed)
    return (*first, *_excesses(arm, metric), changed, _breaks(arm.applied))


def _excesses(arm: "Arm", metric: str | None) -> Iterator[str]:
    """Yield the figure, that of the sham, and the excess with statistics made anew and frozen."""
    applied, sham, frozen, sham_frozen = (
        _figure(outcome, arm.network, metric)
        for outcome in (arm.applied, arm.sham, arm.frozen, arm.sham_frozen)
    )
    yield from (number(applied), number(sham), _less(applied, sham), _less(frozen, sham_frozen))


def _figure(outcome: "Outcome | None", network: str, metric: str | None) -> float | None:
    if outcome is None:
        return None
    return outcome.ranking if network == "discriminator" else outcome.metrics.get(metric or "")


def _less(value: float | None, other: float | None) -> str:
    return "—" if value is None or other is None else f"{value - other:+.4g}"


def _breaks(outcome: "Outcome") -> str:
    """Return the condition that most images no longer meet, beside that all are met."""
    shares = {name: share for name, share in outcome.breaks.items() if name != "all" and share}
    if not shares:
        return ""
    name = max(shares, key=lambda condition: shares[condition])
    return f"{name} {shares[name]:.0%}"


def _primary_row(run: str, probe: "Probe") -> tuple[str, ...]:
    metric = metric_of(probe)
    untouched = number(probe.untouched.metrics.get(metric) if metric else None)
    arm = probe.primary
    if arm is None or arm.applied is None:
        return (run, metric or "—", untouched, "no map", "—", "—", "—", "—")
    changed = number(arm.applied.changed)
    return (run, metric or "—", untouched, *_excesses(arm, metric), changed)
