"""The finished runs of a study, or of a folder of runs, scored once more."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core.errors import UserError
from sagan_bench.experiments import study
from sagan_bench.experiments.driver import held
from sagan_bench.experiments.finished import finished, named
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.experiments.tuning import definition
from sagan_bench.runs.finding import find_runs
from sagan_bench.session import experiment
from sagan_bench.session.events import Stop, Watch
from sagan_bench.session.rescoring import lacking

SEEDS = "evaluation.sampling_seeds"


class Follow(Protocol):
    """Sees each run that is about to be scored, and returns what sees its events."""

    def __call__(self, path: Path, number: int, count: int) -> Watch:
        """Take notice of run ``number`` of ``count``, from 1."""


@dataclass
class Rescored:
    """What came of it.

    Attributes:
        finished: runs that are.
        scored: those that lacked scores and have them now.
        failed: run -> why it could not be scored.
    """

    finished: int = 0
    scored: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def evaluate(
    folder: Path,
    wanted: Callable[[RunConfig], RunConfig],
    follow: Follow,
    stop: Stop,
    weights: Collection[Weights] = (),
) -> Rescored:
    """Score each finished run of a folder that lacks scores; those that cannot be are named.

    Args:
        folder: of a study, or of runs that neither a study nor a tuning names.
        wanted: returns a run's configuration with the evaluation that it is to have.
        follow: sees each run, and its events.
        stop: asked often; a reason stops after the score under way, and the rest is for later.
        weights: which are scored; by default of each run those by which it was.

    Raises:
        UserError: nothing can be scored there, or another process has the folder.
        Stopped: ``stop`` asked for it.
    """
    paths, planned = find_runs(folder), _planned(folder)
    _refuse_experiments(paths, folder)
    result, work = Rescored(), dict[Path, RunConfig]()
    with held(folder):
        for run in finished(paths, planned, result.failed):
            result.finished += 1
            config = wanted(run.config)  # what is wrong with it is so of all runs
            with named(run.path, result.failed):
                if seeds := lacking(run, config, weights):
                    work[run.path] = override(config, {SEEDS: ("--seeds", seeds)})
        if not result.finished and not result.failed:
            raise UserError(f"no run in {folder} is finished yet; run it on, then score it")
        for number, (path, config) in enumerate(work.items(), 1):
            with named(path, result.failed):
                watch = follow(path, number, len(work))
                experiment.evaluate(path, config, weights=weights, watch=watch, stop=stop)
                result.scored.append(path)
    return result


def _planned(folder: Path) -> frozenset[tuple[str, int]] | None:
    """Return the cells of the study in a folder; None where there is none."""
    manifest = StudyManifest.of(folder)
    if manifest and manifest.study.command is not None:
        raise UserError(
            f"the runs in {folder} are those of a command, which alone can score them again"
        )
    return manifest.study.cells if manifest else None


def _refuse_experiments(paths: list[Path], folder: Path) -> None:
    """Refuse a tuning, whose search saw the figures that runs have, and what holds experiments."""
    between = {place for path in paths for place in path.parents if place.is_relative_to(folder)}
    for place in sorted({folder, *between}):
        if (place / definition.MEMORY).exists():
            why = "its figures are those that its search saw; name a single run of it"
            raise UserError(f"{place} is a tuning: {why}")
        if place != folder and (place / study.MEMORY).exists():
            raise UserError(f"{place} is a study: name it by itself")
