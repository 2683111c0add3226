"""The finished runs of a folder, one at a time; what is wrong with one stops no other."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.evaluation.sampling import NonFiniteImages
from sagan_bench.runs.records import Status
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import read_now


def finished(
    paths: Sequence[Path], planned: Collection[tuple[str, int]] | None, failed: dict[Path, str]
) -> Iterator[Run]:
    """Yield the finished runs, of a plan if there is one, that can be read with their settings.

    Args:
        paths: of runs.
        planned: (variant, seed) of the runs that are meant; None means all.
        failed: run -> why it cannot be read, filled in here.
    """
    for path in paths:
        with named(path, failed):
            run = Run(path, read_now(path))
            is_meant = planned is None or (run.variant, run.seed) in planned
            if run.record.status is Status.FINISHED and is_meant:
                run.config  # noqa: B018  # refuses a damaged one
                yield run


@contextmanager
def named(path: Path, failed: dict[Path, str]) -> Iterator[None]:
    """Within, what is wrong with a run is noted, and no failure of the machine."""
    try:
        yield
    except MachineError:
        raise
    except (UserError, NonFiniteImages) as error:
        failed[path] = str(error)
