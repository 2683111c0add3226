"""The finished runs of a study, or of a folder of runs, probed one after another."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.driver import held
from sagan_bench.experiments.finished import finished, named
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.probe import Probe
from sagan_bench.runs.run import Run
from sagan_bench.session import probing
from sagan_bench.session.events import Stop, Watch


class Follow(Protocol):
    """Sees each run that is about to be probed, and returns what sees its events."""

    def __call__(self, path: Path, number: int, count: int) -> Watch:
        """Take notice of run ``number`` of ``count``, from 1."""


@dataclass
class ProbedRuns:
    """What came of it.

    Attributes:
        probes: run -> its probe.
        made: those of them that were made now.
        without_block: finished runs in which nothing can be probed.
        failed: run -> why it could not be probed.
    """

    probes: dict[Path, Probe] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)
    without_block: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def probe(
    folder: Path,
    wanted: Callable[[RunConfig], RunConfig],
    follow: Follow,
    stop: Stop,
    *,
    images: int = probing.IMAGES,
    metrics: Collection[str] = (),
    again: bool = False,
) -> ProbedRuns:
    """Probe each finished run of a folder that has a block; those that cannot be are named.

    Args:
        folder: of a study, or of runs.
        wanted: returns a run's configuration with the device that it is probed on.
        follow: sees each run, and its events.
        stop: asked often; what was probed until then stays, and the rest is for later.
        images: of each run, as `sagan_bench.session.probing.probe` takes them.
        metrics: likewise.
        again: likewise.

    Raises:
        UserError: nothing can be probed there, or another process has the folder.
        Stopped: ``stop`` asked for it.
    """
    manifest, result, work = StudyManifest.of(folder), ProbedRuns(), list[Run]()
    if manifest and manifest.study.command is not None:
        raise UserError(f"the runs in {folder} are those of a command: their weights are its own")
    planned = manifest.study.cells if manifest else None
    with held(folder):
        for run in finished(find_runs(folder), planned, result.failed):
            with named(run.path, result.failed):
                if probing.has_block(run.config):
                    work.append(run)
                else:
                    result.without_block.append(run.path)
        if not work and not result.failed:
            what = "has a block to probe" if result.without_block else "is finished yet"
            raise UserError(f"no run in {folder} {what}")
        for number, run in enumerate(work, 1):
            with named(run.path, result.failed):
                made, is_new = probing.probe(
                    run.path, wanted(run.config), images=images, metrics=metrics, again=again,
                    watch=follow(run.path, number, len(work)), stop=stop,
                )  # fmt: skip
                result.probes[run.path] = made
                result.made += [run.path] if is_new else []
    return result
