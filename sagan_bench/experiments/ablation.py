"""From a study to the records of its cells: the plan, and what runs it."""

import logging
import shutil
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from sagan_bench.analysis.question import Facts, Place
from sagan_bench.config.diff import Difference, in_results
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.cpu import cores
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import known_fingerprint
from sagan_bench.experiments import study
from sagan_bench.experiments.study import Memory, Study
from sagan_bench.runs import records
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run_directory import move_aside, read_now

if TYPE_CHECKING:  # torch: a finished study is recognised without it
    from sagan_bench.execution.engine import Ended, Engine, Event, Job
    from sagan_bench.session.events import Progress as Phase
    from sagan_bench.session.events import Scored, Stop
    from sagan_bench.training.loop import Diverged, Step

    StudyWatch = Callable[["Cell", Phase | Step | Diverged | Scored | Ended | None], None]

_log = logging.getLogger(__name__)

State = Literal["new", "resumable", "running", "done", "diverged", "failed"]
"""Of a cell.  ``diverged`` and ``failed`` are results: only ``failed`` can be tried again."""

BYTES_A_WEIGHT = 4
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class Cell:
    """A variant at a training seed: where its run is, and how far it has come."""

    variant: str
    seed: int
    config: RunConfig
    digest: str | None
    """None while the data's content is not known."""
    path: Path
    record: Record | None
    trouble: str | None = None
    """Why its record cannot be read."""

    @property
    def id(self) -> str:
        """The name by which events speak of it."""
        return f"{self.variant}-s{self.seed}"

    @property
    def state(self) -> State:
        """How far it has come."""
        if self.record is None:
            return "failed" if self.trouble else "new"
        if self.record.status == Status.INTERRUPTED:
            return "resumable"
        return (
            "done"
            if self.record.status == Status.FINISHED
            else cast(State, self.record.status.value)
        )

    @property
    def reason(self) -> str | None:
        """Why it has no result."""
        return self.record.reason if self.record else self.trouble

    @property
    def steps_left(self) -> int:
        """Generator updates that it still has to take."""
        return self.config.run.steps - (self.record.step if self.record else 0)


@dataclass(frozen=True)
class Plan:
    """The cells of a study in the order they run: all variants at one seed, then the next seed.

    Attributes:
        folder: of the study.
        memory: what the folder keeps, or will.
        cells: of all variants and seeds.
        chosen: of these, the ids that are to be run now.
        retry: also run what failed before.
    """

    folder: Path
    memory: Memory
    cells: tuple[Cell, ...]
    chosen: frozenset[str]
    retry: bool = False

    @property
    def missing(self) -> list[Cell]:
        """The cells that will be run."""
        states = {"new", "resumable", "running", *(["failed"] if self.retry else [])}
        return [cell for cell in self.cells if cell.id in self.chosen and cell.state in states]

    def refreshed(self) -> "Plan":
        """Return the plan with its cells as they now are on the disk."""
        cells = (Cell(c.variant, c.seed, c.config, c.digest, *_found(c.path)) for c in self.cells)
        return replace(self, cells=tuple(cells))

    def differences(self) -> dict[str, list[Difference]]:
        """Return, for each compared variant, (key, in its baseline, in the variant)."""
        first = {cell.variant: cell.config for cell in reversed(self.cells)}
        return {
            variant: in_results(first[baseline], first[variant])
            for variant, baseline in self.memory.study.pairs
        }

    def seconds_left(self, jobs: int, per_flop: float | None = None) -> float | None:
        """Estimate the wall time from finished cells, by FLOPs where a variant has none yet.

        Where no cell is finished, ``per_flop`` tells what training takes, without scoring.
        """
        done = [
            cell for cell in self.cells if cell.record and cell.record.status == Status.FINISHED
        ]
        if not done and per_flop:
            shares = ((c, c.steps_left / c.config.run.steps) for c in self.missing)
            return sum(per_flop * self._flops(cell) * share for cell, share in shares) / jobs
        if not done:
            return None
        scoring = statistics.median(self._cost(cell).score_sec or 0 for cell in done)

        def seconds(cell: Cell) -> float:
            alike = [other for other in done if other.variant == cell.variant]
            per_flop = statistics.median(
                (self._cost(other).train_sec or 0) / self._flops(other) for other in alike or done
            )
            share_left = cell.steps_left / cell.config.run.steps
            return per_flop * self._flops(cell) * share_left + scoring

        return sum(seconds(cell) for cell in self.missing) / jobs

    def _flops(self, cell: Cell) -> int:
        return self.memory.facts[cell.variant].flops_per_step * cell.config.run.steps

    @staticmethod
    def _cost(cell: Cell) -> records.Cost:
        return cell.record.cost if cell.record else records.Cost()

    def disk_bytes(self) -> int:
        """Estimate what the missing cells will take: their weights, and checkpoints under way."""

        def kept(facts: Facts) -> int:
            return 2 * facts.parameters_g * BYTES_A_WEIGHT

        def checkpoint(facts: Facts) -> int:
            """G, its average and two moments; D and two moments."""
            return (4 * facts.parameters_g + 3 * facts.parameters_d) * BYTES_A_WEIGHT

        of = [self.memory.facts[cell.variant] for cell in self.missing]
        largest = max(map(checkpoint, of), default=0)
        return sum(map(kept, of)) + cores() * CHECKPOINTS_KEPT * largest


def folder_of(asked: Study, runs: Path, name: str | None) -> Path:
    """Return ``runs/<name>``; by default the study's name, and the kind of the data if given."""
    moved = "data.source" in asked.set and asked.data_kind != "twins"
    return study.below(runs, name or (f"{asked.name}-{asked.data_kind}" if moved else asked.name))


def plan(
    asked: Study,
    folder: Path,
    host: Callable[[RunConfig], Host],
    *,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    retry: bool = False,
    without_data: bool = False,
) -> Plan:
    """Return what the study in a folder consists of, what is there, and what is to run.

    Nothing is touched.  A study that was begun goes on with what ``auto`` meant then, and may grow
    by seeds and variants.

    Args:
        asked: the study as it is asked for now.
        folder: where it is, or will be.
        host: what this machine offers; asked only if the study is new.
        seeds: run these; those that the study lacks are added to it.
        only: run these variants; all by default.
        retry: run failed cells again.
        without_data: plan even where the data are not at hand, to see what it would cost.

    Raises:
        UserError: another study is there, or a cell, seed or variant cannot be.
    """
    memory = study.Memory.of(folder)
    if memory:
        study.refuse_other(memory, asked, folder)
        if not seeds:
            _tell_of_seeds(memory.study, asked, folder)
        asked = _grown(memory.study, asked, seeds)
    elif seeds:
        asked = asked.model_copy(update={"seeds": tuple(seeds)})
    _refuse_unknown(only, asked)
    auto = memory.auto if memory else host(asked.asked(asked.all_variants[0], 0).config)
    configs = {
        (variant, seed): asked.config(variant, seed, auto).config
        for seed in asked.seeds
        for variant in asked.all_variants
    }
    fingerprint = memory.data_fingerprint if memory else _known(_spec(configs), without_data)
    cells = _cells(configs, fingerprint, folder)
    memory = memory or Memory.begun(asked, auto, fingerprint or "")
    visible = any(cell.record and cell.record.scores for cell in cells)
    grown = {*asked.seeds, *asked.all_variants} - {*memory.study.seeds, *memory.study.all_variants}
    now = {
        "study": asked,
        "looks": memory.looks + bool(visible and grown),
        "facts": _facts(cells, memory.facts),
    }
    chosen = frozenset(
        cell.id
        for cell in cells
        if (not only or cell.variant in only) and (not seeds or cell.seed in seeds)
    )
    return Plan(folder, memory.model_copy(update=now), cells, chosen, retry)


def with_data(planned: Plan, progress: OnProgress = unwatched) -> Plan:
    """Prepare the data of a plan, and return the plan with the digests that follow from it.

    Raises:
        UserError: the data cannot be used, or is not what the study was begun with.
    """
    configs = {(cell.variant, cell.seed): cell.config for cell in planned.cells}
    first = planned.cells[0].config
    store = prepare(_spec(configs), progress=progress, skip_bad=first.run.skip_bad)
    fingerprint = store.manifest.fingerprint()
    if planned.memory.data_fingerprint not in ("", fingerprint):
        raise UserError(
            f"the images at {first.data.source} are not those that the study in {planned.folder} "
            "was begun with; choose another --name for a study of these"
        )
    memory = planned.memory.model_copy(update={"data_fingerprint": fingerprint})
    return replace(planned, memory=memory, cells=_cells(configs, fingerprint, planned.folder))


def _grown(here: Study, asked: Study, seeds: Sequence[int]) -> Study:
    grown = {
        "seeds": study.joined(here.seeds, seeds),
        "variants": study.joined(here.variants, asked.variants),
        "against": here.against | asked.against,
        "set": here.set | asked.set,
    }
    return here.model_copy(update=grown)


def _tell_of_seeds(here: Study, asked: Study, folder: Path) -> None:
    """Say that a definition has seeds which the study was begun without."""
    if more := sorted(set(asked.seeds) - set(here.seeds)):
        told = ",".join(map(str, more))
        _log.warning("%s was begun without seeds %s; add them with --seeds %s", folder, told, told)


def _refuse_unknown(only: Sequence[str], asked: Study) -> None:
    for variant in only:
        if variant not in asked.all_variants:
            raise UserError(
                f"--only {variant}: study {asked.name} has no such variant; "
                f"{closest(variant, asked.all_variants)}"
            )


def _known(spec: DataSpec, without_data: bool) -> str | None:
    try:
        return known_fingerprint(spec)
    except UserError:
        if not without_data:
            raise
        return None


def _spec(configs: Mapping[tuple[str, int], RunConfig]) -> DataSpec:
    """Return the one data set of all cells.  Raises `UserError` if there is more than one."""
    specs = {DataSpec.of(config.data): variant for (variant, _), config in configs.items()}
    if len(specs) > 1:
        raise UserError(
            f"variants {' and '.join(specs.values())} train on different data, so that their "
            "scores could not be compared; leave data.* to the study"
        )
    return next(iter(specs))


def _cells(
    configs: Mapping[tuple[str, int], RunConfig], fingerprint: str | None, folder: Path
) -> tuple[Cell, ...]:
    """Return the cells with what is on the disk of them.

    Raises:
        UserError: two variants are the same network and recipe.
    """
    cells, seen = [], dict[str, str]()
    for (variant, seed), config in configs.items():
        digest = config.digest(fingerprint) if fingerprint else None
        path = folder / f"{variant}-s{seed}-{digest or 'unknown'}"
        if digest and seen.setdefault(digest, variant) != variant:
            raise UserError(
                f"with preset {config.preset}, variants {seen[digest]} and {variant} are the same "
                "network and recipe; leave one out"
            )
        cells.append(Cell(variant, seed, config, digest, *_found(path)))
    return tuple(cells)


def _found(path: Path) -> tuple[Path, Record | None, str | None]:
    """Return a cell's path, its record, and why there is none although it was begun."""
    if not (path / records.RECORD).exists():
        return path, None, None
    try:
        return path, read_now(path), None
    except UserError as error:  # its own trouble: the other cells go on
        return path, None, str(error)


def _facts(cells: Sequence[Cell], known: Mapping[str, Facts]) -> dict[str, Facts]:
    configs = {cell.variant: cell.config for cell in cells}
    return {name: known.get(name) or counted(config) for name, config in configs.items()}


def counted(config: RunConfig) -> Facts:
    """Return what a configuration's networks are.  Raises `UserError` if they cannot be built."""
    from sagan_bench.models.build import flops_per_step, layers, placed  # a second of torch

    table = layers(config)
    parameters = {
        network: sum(layer.parameters for layer in table if layer.network == network)
        for network in ("generator", "discriminator")
    }
    return Facts(
        blocks=tuple(Place(**place._asdict()) for place in placed(config)),
        parameters_g=parameters["generator"],
        parameters_d=parameters["discriminator"],
        flops_per_step=flops_per_step(config),
    )


# --- Running ---------------------------------------------------------------------------------


def run(planned: Plan, engine: "Engine", watch: "StudyWatch", stop: "Stop") -> None:
    """Run the missing cells of a plan, as many at a time as the engine has room for.

    Args:
        planned: with its data prepared.
        engine: where cells run; left open.
        watch: sees each cell that begins (None) and every event of it.
        stop: asked often; a reason stops all cells after a checkpoint.

    Raises:
        UserError: another process runs the study, or the disk is too small.
        Stopped: ``stop`` asked for it.
    """
    from sagan_bench.experiments.driver import drive  # torch comes with it

    planned.folder.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(planned)
    planned.memory.write(planned.folder)
    drive(_Grid(planned, watch), engine, stop, planned.folder)


class _Grid:
    """The missing cells of a plan, in their order."""

    def __init__(self, planned: Plan, watch: "StudyWatch") -> None:
        self.watch = watch
        self.waiting = deque(planned.missing)
        self.running: dict[str, Cell] = {}

    def next(self) -> "Job | None":
        """Return the next cell as a job; one whose record is damaged is begun anew."""
        from sagan_bench.execution.engine import Job

        if not self.waiting:
            return None
        cell = self.waiting.popleft()
        if cell.trouble:  # asked for: nothing is lost
            move_aside(cell.path)
        self.running[cell.id] = cell
        self.watch(cell, None)
        return Job(cell.id, cell.config, cell.path, cell.digest or "")

    def take(self, event: "Event") -> None:
        """Show an event."""
        from sagan_bench.execution.engine import Ended

        self.watch(self.running[event.job], event.what)
        if isinstance(event.what, Ended):
            del self.running[event.job]


def _refuse_full_disk(planned: Plan) -> None:
    needed, free = planned.disk_bytes(), shutil.disk_usage(planned.folder).free
    if needed > free:
        raise UserError(
            f"the missing cells take about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            f"free at {planned.folder}; free some, or choose another --runs"
        )
