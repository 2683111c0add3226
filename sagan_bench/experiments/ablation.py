"""From a study to the records of its runs: the plan, and what runs it."""

import logging
import shutil
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.analysis.question import Facts
from sagan_bench.config.diff import Difference, in_results
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.cpu import cores
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import known_fingerprint
from sagan_bench.execution.engine import Job
from sagan_bench.experiments.manifest import below
from sagan_bench.experiments.study import Study, StudyManifest
from sagan_bench.runs.records import RECORD, Record, Status
from sagan_bench.runs.run_directory import move_aside, read_now

if TYPE_CHECKING:  # torch: a finished study is recognised without it
    from sagan_bench.execution.engine import Engine
    from sagan_bench.experiments.driver import Watch, What
    from sagan_bench.session.events import Stop

_log = logging.getLogger(__name__)

BYTES_A_WEIGHT = 4
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class GridPoint(Job):
    """A variant at a training seed: where its run is, and how far it has come."""

    record: Record | None
    trouble: str | None
    """Why its record cannot be read."""

    @property
    def status(self) -> Status | None:
        """How far it has come; None if it was never begun.  What failed can be tried again."""
        if self.record:
            return self.record.status
        return Status.FAILED if self.trouble else None

    @property
    def reason(self) -> str | None:
        """Why it has no result."""
        return self.record.reason if self.record else self.trouble

    @property
    def share_left(self) -> float:
        """The share of its generator updates that it still has to take."""
        steps = self.config.run.steps
        return (steps - (self.record.step if self.record else 0)) / steps


@dataclass(frozen=True)
class Plan:
    """The points of a study in the order they run: all variants at one seed, then the next seed.

    Attributes:
        folder: of the study.
        manifest: what the folder keeps, or will.
        points: of all variants and seeds.
        chosen: of these, the ids that are to be run now.
        retry: also run what failed before.
    """

    folder: Path
    manifest: StudyManifest
    points: tuple[GridPoint, ...]
    chosen: frozenset[str]
    retry: bool = False

    @cached_property
    def missing(self) -> list[GridPoint]:
        """What will be run."""
        return [
            point for point in self.points if point.id in self.chosen and self._is_missing(point)
        ]

    def _is_missing(self, point: GridPoint) -> bool:
        lost = point.status is Status.FAILED
        return self.retry if lost else point.status is None or not point.status.is_over

    def refreshed(self) -> "Plan":
        """Return the plan with its points as they now are on the disk."""
        points = (GridPoint(c.id, c.config, c.path, c.digest, *_read(c.path)) for c in self.points)
        return replace(self, points=tuple(points))

    def differences(self) -> dict[str, list[Difference]]:
        """Return, for each compared variant, (key, in its baseline, in the variant)."""
        first = {point.variant: point.config for point in reversed(self.points)}
        return {
            variant: in_results(first[baseline], first[variant])
            for variant, baseline in self.manifest.study.pairs
        }

    def seconds_left(self, jobs: int, per_flop: float | None = None) -> float | None:
        """Estimate the wall time from finished runs, by FLOPs where a variant has none yet.

        Where nothing is finished, ``per_flop`` says what training takes, without scoring.
        """
        finished = [
            (point, point.record.cost)
            for point in self.points
            if point.record and point.status is Status.FINISHED
        ]
        if not (finished or per_flop):
            return None
        rates: dict[str, list[float]] = defaultdict(list)
        for point, cost in finished:
            rates[point.variant].append((cost.train_sec or 0) / self._flops(point))
        every = [rate for alike in rates.values() for rate in alike] or [per_flop or 0.0]
        usual, by_variant = (
            statistics.median(every),
            {k: statistics.median(v) for k, v in rates.items()},
        )
        scoring = statistics.median([cost.score_sec or 0 for _, cost in finished] or [0.0])
        seconds = (
            by_variant.get(point.variant, usual) * self._flops(point) * point.share_left + scoring
            for point in self.missing
        )
        return sum(seconds) / jobs

    def _flops(self, point: GridPoint) -> int:
        return self.manifest.facts[point.variant].flops_per_step * point.config.run.steps

    def disk_bytes(self) -> int:
        """Estimate what the missing runs will take: their weights, and checkpoints under way.

        Kept are G and its average; a checkpoint has two moments of G more, and D with two.
        """
        of = [self.manifest.facts[point.variant] for point in self.missing]
        kept = sum(2 * facts.parameters_g for facts in of)
        largest = max((4 * facts.parameters_g + 3 * facts.parameters_d for facts in of), default=0)
        return (kept + cores() * CHECKPOINTS_KEPT * largest) * BYTES_A_WEIGHT


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
        host: what this machine offers; asked only if the study is new.
        seeds: run these; those that the study lacks are added to it.
        only: run these variants; all by default.
        retry: run again what failed.
        without_data: plan even where the data are not at hand, to see what it would cost.

    Raises:
        UserError: another study is there, or a variant at a seed cannot be.
    """
    manifest = StudyManifest.of(folder)
    study = _with_seeds(requested, manifest, folder, seeds)
    _refuse_unknown(only, study)
    auto = manifest.auto if manifest else host(study.requested(study.all_variants[0], 0).config)
    configs = [
        study.config(variant, seed, auto).config
        for seed in study.seeds
        for variant in study.all_variants
    ]
    known = manifest.data_fingerprint if manifest else _known(_spec(configs), without_data)
    points = _points(configs, known, folder)
    manifest = _extended(manifest, StudyManifest.begun(study, auto, known), points)
    variants, chosen_seeds = set(only or study.all_variants), set(seeds or study.seeds)
    chosen = (c.id for c in points if c.variant in variants and c.seed in chosen_seeds)
    return Plan(folder, manifest, points, frozenset(chosen), retry)


def with_data(planned: Plan, progress: OnProgress = unwatched) -> Plan:
    """Prepare the data of a plan, and return the plan with the digests that follow from it.

    Raises:
        UserError: the data cannot be used, or is not what the study was begun with.
    """
    configs = [point.config for point in planned.points]
    manifest = planned.manifest.with_data(configs[0], planned.folder, progress)
    points = _points(configs, manifest.data_fingerprint, planned.folder)
    return replace(planned, manifest=manifest, points=points)


def _with_seeds(
    requested: Study, manifest: StudyManifest | None, folder: Path, seeds: Sequence[int]
) -> Study:
    """Return the study that goes on, or begins.  Raises `UserError` if the folder has another."""
    if manifest is None:
        return requested.model_copy(update={"seeds": tuple(seeds)} if seeds else {})
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
    facts = {name: manifest.facts.get(name) or counted(config) for name, config in configs.items()}
    looks = manifest.looks + bool(visible and grown)
    return manifest.model_copy(update={"study": study, "looks": looks, "facts": facts})


def _refuse_unknown(only: Collection[str], study: Study) -> None:
    for variant in only:
        if variant not in study.all_variants:
            raise UserError(
                f"--only {variant}: study {study.name} has no such variant; "
                f"{closest(variant, study.all_variants)}"
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


def _points(configs: Sequence[RunConfig], fingerprint: str, folder: Path) -> tuple[GridPoint, ...]:
    """Return the points of a grid with what is on the disk of them.

    Raises:
        UserError: two variants are the same network and recipe.
    """
    points, seen = [], dict[str, str]()
    for config in configs:
        variant, name = config.variant, f"{config.variant}-s{config.seed}"
        digest = config.digest(fingerprint) if fingerprint else ""
        path = folder / f"{name}-{digest or 'unknown'}"
        if digest and seen.setdefault(digest, variant) != variant:
            raise UserError(
                f"with preset {config.preset}, variants {seen[digest]} and {variant} are the same "
                "network and recipe; leave one out"
            )
        points.append(GridPoint(name, config, path, digest, *_read(path)))
    return tuple(points)


def _read(path: Path) -> tuple[Record | None, str | None]:
    """Return the record of a run, and why there is none although it was begun."""
    if not (path / RECORD).exists():
        return None, None
    try:
        return read_now(path), None
    except UserError as error:  # its own trouble: the others go on
        return None, str(error)


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
    drive(_Grid(planned.missing), engine, watch, stop, planned.folder)


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
