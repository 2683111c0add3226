"""From a study to the records of its runs: the plan, and what runs it."""

import logging
import shutil
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.analysis.question import Facts
from sagan_bench.config.belonging import refuse_untaken
from sagan_bench.config.layers import for_host
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import extensions, garbage
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import known_fingerprint
from sagan_bench.experiments.grid import GridPoint, Plan, point_at
from sagan_bench.experiments.manifest import below
from sagan_bench.experiments.study import Study, StudyManifest
from sagan_bench.runs.command import Command
from sagan_bench.runs.run_directory import move_aside

if TYPE_CHECKING:  # torch: a finished study is recognised without it
    from sagan_bench.execution.engine import Engine
    from sagan_bench.experiments.driver import Watch, What, Work
    from sagan_bench.session.events import Stop

_log = logging.getLogger(__name__)


def folder_of(study: Study, runs: Path, name: str | None) -> Path:
    """Return ``runs/<name>``; by default the study's name, and the kind of the data if given."""
    moved = "data.source" in study.set and study.data_kind != "twins"
    return below(runs, name or (f"{study.name}-{study.data_kind}" if moved else study.name))


def plan(
    requested: Study,
    folder: Path,
    host: Callable[[RunConfig], Host],
    *,
    seeds: Sequence[int] = (),
    only: Collection[str] = (),
    retry: bool = False,
    without_data: bool = False,
) -> Plan:
    """Return what the study in a folder consists of, what is there, and what is to run.

    Nothing is touched.  A study that was begun goes on with what ``auto`` meant then, and may grow
    by seeds and variants.

    Args:
        requested: the study as it is asked for now.
        folder: where it is, or will be.
        host: what the machine offers to a configuration; asked only if the study is new.
        seeds: run these; those that the study lacks are added to it.
        only: run these variants; all by default.
        retry: run again what failed.
        without_data: plan even where the data are not at hand, to see what it would cost.

    Raises:
        UserError: another study is there, or a variant at a seed cannot be.
    """
    if requested.command is None:
        asked = [requested.requested(name, 0).config for name in requested.all_variants]
        requested = requested.with_own(asked)
    manifest = StudyManifest.of(folder)
    study = _with_seeds(requested, manifest, folder, seeds)
    _refuse_unknown(only, study)
    extensions.require(study.own, folder)
    if study.command is None:
        auto = manifest.auto if manifest else host(for_host(asked))
        configs = study.configs(auto)
        each = configs[: len(study.all_variants)]
        refuse_untaken(study.settings, each, f"study {study.name}")
        known = manifest.data_fingerprint if manifest else _known(_spec(each), without_data)
        begun = StudyManifest.begun(study, auto, known)
        points = _points(configs, known, folder)
    else:
        begun = StudyManifest.of_command(study)
        points = _points([study.run_of(*cell) for cell in study.in_turn], "", folder)
    manifest = _extended(manifest, begun, points)
    variants, chosen_seeds = set(only or study.all_variants), set(seeds or study.order)
    chosen = (c.id for c in points if c.variant in variants and c.seed in chosen_seeds)
    planned = Plan(folder, manifest, points, frozenset(chosen), retry, by_seed=bool(seeds))
    _refuse_unknown_program(planned)
    return planned


def with_data(planned: Plan, progress: OnProgress = unwatched) -> Plan:
    """Prepare the data of a plan, and return the plan with the digests that follow from it.

    Raises:
        UserError: the data cannot be used, or is not what the study was begun with.
    """
    if planned.manifest.study.command is not None:
        return planned
    known = planned.manifest.data_fingerprint
    manifest = planned.manifest.with_data(planned.points[0].ours, planned.folder, progress)
    if manifest.data_fingerprint == known:
        return planned.refreshed()
    configs = [point.ours for point in planned.points]
    points = _points(configs, manifest.data_fingerprint, planned.folder)
    return replace(planned, manifest=manifest, points=points)


def _with_seeds(
    requested: Study, manifest: StudyManifest | None, folder: Path, seeds: Sequence[int]
) -> Study:
    """Return the study that goes on, or begins.  Raises `UserError` if the folder has another."""
    if manifest is None:
        begun = requested.seeds if requested.design else ()  # its order does not depend on these
        wanted = tuple(dict.fromkeys((*begun, *seeds)))
        return requested.model_copy(update={"seeds": wanted} if seeds else {})
    manifest.refuse_other(requested, folder)
    more = sorted(set(requested.seeds) - set(manifest.study.seeds))
    if more and not seeds:
        text = ",".join(map(str, more))
        _log.warning("%s was begun without seeds %s; add them with --seeds %s", folder, text, text)
    return manifest.study.extended(requested, seeds)


def _extended(
    before: StudyManifest | None, begun: StudyManifest, points: Sequence[GridPoint]
) -> StudyManifest:
    """Return the manifest of a study that goes on, or begins.

    More runs once scores are there are a look; so is a study that begins around runs with scores.
    """
    study, manifest = begun.study, before or begun
    known = {*before.study.seeds, *before.study.all_variants} if before else set[int | str]()
    grown = {*study.seeds, *study.all_variants} - known
    visible = any(point.record and point.record.scores for point in points)
    configs = {point.variant: point.config for point in points}
    facts = {
        name: manifest.facts.get(name) or counted(config)
        for name, config in configs.items()
        if not isinstance(config, Command)
    }
    pays = before is not None and study.design is not None  # for each look, whatever is added
    looks = manifest.looks + bool(visible and grown and not pays)
    return manifest.model_copy(update={"study": study, "looks": looks, "facts": facts})


def _refuse_unknown(only: Collection[str], study: Study) -> None:
    for variant in only:
        if variant not in study.all_variants:
            raise UserError(
                f"--only {variant}: study {study.name} has no such variant; "
                f"{closest(variant, study.all_variants)}"
            )


def _refuse_unknown_program(planned: Plan) -> None:
    """Refuse commands that cannot be, or whose program is not here, before any is run."""
    for point in planned.missing:
        if isinstance(point.config, Command):
            program = point.config.words(point.path)[0]
            if point.config.real is not None and not Path(point.config.real).is_dir():
                raise UserError(f"real: there is no folder {point.config.real}; check the path")
            if shutil.which(program) is None:
                raise UserError(
                    f"the command of {point.id}: no program {program!r} is here that may be run; "
                    "give its path, or put what runs it first"
                )


def _known(spec: DataSpec, without_data: bool) -> str:
    with suppress(*[UserError] if without_data else []):
        return known_fingerprint(spec) or ""
    return ""


def _spec(configs: Sequence[RunConfig]) -> DataSpec:
    """Return the data set of all runs.  Raises `UserError` if there is more than one."""
    specs = {DataSpec.of(config.data): config.variant for config in configs}
    if len(specs) > 1:
        raise UserError(
            f"variants {' and '.join(specs.values())} train on different data, so that their "
            "scores could not be compared; leave data.* to the study"
        )
    return next(iter(specs))


@garbage.none_expected()
def _points(
    configs: Sequence[RunConfig | Command], fingerprint: str, folder: Path
) -> tuple[GridPoint, ...]:
    """Return the points of a grid with what is on the disk of them.

    Raises:
        UserError: two variants are the same network and recipe.
    """
    points, seen = [], dict[str, str]()
    for config in configs:
        variant, name = config.variant, f"{config.variant}-s{config.seed}"
        digest = _digest(config, fingerprint)
        path = folder / f"{name}-{digest or 'unknown'}"
        if digest and seen.setdefault(digest, variant) != variant:
            raise UserError(
                f"variants {seen[digest]} and {variant} are the same {_what(config)}; leave one out"
            )
        points.append(point_at(path, name, config, digest))
    return tuple(points)


def _digest(config: RunConfig | Command, fingerprint: str) -> str:
    """Return a run's digest; empty while the content of its images is not known."""
    if isinstance(config, Command):
        return config.digest
    return config.digest(fingerprint) if fingerprint else ""


def _what(config: RunConfig | Command) -> str:
    if isinstance(config, Command):
        return "command"
    return f"network and recipe with preset {config.preset}"


def counted(config: RunConfig) -> Facts:
    """Return what a configuration's networks are.  Raises `UserError` if they cannot be built."""
    from sagan_bench.models.build import layout  # a second of torch

    networks = layout(config)
    return Facts(
        blocks=networks.blocks,
        parameters_g=networks.parameters("generator"),
        parameters_d=networks.parameters("discriminator"),
        flops_per_step=networks.flops_per_step,
    )


# --- Running ---------------------------------------------------------------------------------


def run(planned: Plan, engine: "Engine", watch: "Watch[GridPoint]", stop: "Stop") -> None:
    """Run what is missing of a plan, as many runs at a time as the engine has room for.

    Args:
        planned: with its data prepared.
        engine: where runs are made; left open.
        watch: sees each run that begins (None) and every event of it.
        stop: asked often; a reason stops all runs after a checkpoint.

    Raises:
        UserError: another process runs the study, or the disk is too small.
        Stopped: ``stop`` asked for it.
    """
    from sagan_bench.experiments.driver import drive  # torch comes with it

    planned.folder.mkdir(parents=True, exist_ok=True)
    needed, free = planned.disk_bytes(), shutil.disk_usage(planned.folder).free
    if needed > free:
        raise UserError(
            f"the missing cells take about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            f"free at {planned.folder}; free some, or choose another --runs"
        )
    planned.manifest.write(planned.folder)
    extensions.leave(extensions.require(planned.manifest.study.own), planned.folder)
    drive(_work(planned), engine, watch, stop, planned.folder)


def _work(planned: Plan) -> "Work[GridPoint]":
    study = planned.manifest.study
    if study.design is None or planned.by_seed:
        return _Grid(planned.missing)
    from sagan_bench.experiments.growing import Growing  # scipy comes with it

    return Growing(planned.possible, lambda: planned.refreshed().courses, study.design, study.order)


class _Grid:
    """Points in their order."""

    def __init__(self, missing: Sequence[GridPoint]) -> None:
        self.waiting = deque(missing)

    def next(self) -> GridPoint | None:
        """Return the next; one whose record is damaged is begun anew."""
        point = self.waiting.popleft() if self.waiting else None
        if point and point.trouble:  # retried: nothing is lost
            move_aside(point.path)
        return point

    def take(self, run: GridPoint, what: "What") -> None:
        """Let it go on."""
