"""The training state of a run that is over: whether it stays, how big it is, and its removal."""

from contextlib import suppress
from pathlib import Path

from sagan_bench.core import locks
from sagan_bench.core.errors import UserError
from sagan_bench.core.trees import flatten
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import CHECKPOINTS, Status, read
from sagan_bench.runs.run_directory import LOCK, acquired, is_locked

MOST_BYTES = 2**30
"""Below which ``run.keep_training_state = "auto"`` keeps it."""
BYTES_A_WEIGHT = 4


def state_bytes(parameters_g: int, parameters_d: int, bytes_a_weight: int = BYTES_A_WEIGHT) -> int:
    """Return about what a checkpoint takes: G, its average and two moments of G, D and its two."""
    return (4 * parameters_g + 3 * parameters_d) * bytes_a_weight


def keeps(choice: object, size: int) -> bool:
    """Return whether a finished run keeps its training state.

    Args:
        choice: ``run.keep_training_state``: true, false or ``auto``.
        size: of the checkpoint, in bytes.
    """
    return size < MOST_BYTES if choice == "auto" else choice is not False


def saved_in(path: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, the newest last."""
    return sorted((path / CHECKPOINTS).glob("*.ckpt"))


def kept_bytes(path: Path) -> int:
    """Return how much the checkpoints in a run's folder take; 0 if there are none."""
    return sum(file.stat().st_size for file in saved_in(path))


def prune(path: Path) -> int:
    """Remove the training state that a run kept, and nothing else; return the bytes it took.

    Raises:
        UserError: there is no run, another process trains it, or it is not over and needs it.
    """
    read(path)  # before the lock, which leaves a file
    if not saved_in(path):
        return 0
    lock = acquired(path)
    try:
        record = read(path)
        if not record.status.is_result:
            status = Status.INTERRUPTED if record.status is Status.RUNNING else record.status
            raise UserError(
                f"{path} is {status} at step {record.step} of {record.steps}, and goes on from its "
                "checkpoint; finish it first"
            )
        freed = kept_bytes(path)
        for file in saved_in(path):
            file.unlink()
        return freed
    finally:
        lock.release()


def tidy(root: Path) -> None:
    """Remove what a kill at the very end of a run left, in every run at or below ``root``.

    That is the note of who held it, and of a finished one the checkpoints that its settings do not
    keep.  A run that another process holds is left alone.
    """
    for path in find_runs(root):
        saved = saved_in(path)
        if (locks.note_of(path / LOCK).exists() or saved) and not is_locked(path):
            with suppress(UserError):  # its record is damaged, or somebody has just begun with it
                _tidied(path, saved)


def _tidied(path: Path, saved: list[Path]) -> None:
    lock = acquired(path)
    try:
        record = read(path)
        choice = dict(flatten(record.config)).get("run.keep_training_state")
        if record.status is Status.FINISHED and saved:
            stays = keeps(choice, saved[-1].stat().st_size)
            for checkpoint in [] if stays else saved:
                checkpoint.unlink(missing_ok=True)
    finally:
        lock.release()
