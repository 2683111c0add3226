"""Whether and from where a run goes on."""

from pathlib import Path
from typing import Any

from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.runs.keeping import saved_in
from sagan_bench.runs.records import CHECKPOINTS, Record, Status
from sagan_bench.training.checkpoint import Checkpoints


def is_complete(earlier: Record, steps: int, path: Path) -> bool:
    """Return whether nothing is left to do.

    Raises:
        UserError: the run went further than asked, or cannot be extended.
    """
    if earlier.status == Status.DIVERGED:
        return True
    if earlier.status != Status.FINISHED or earlier.step == steps:
        return earlier.status == Status.FINISHED
    if earlier.step > steps:
        raise UserError(
            f"{path} is finished at step {earlier.step}, and {steps} were asked for; choose "
            "another --name or --out for a shorter run"
        )
    if not saved_in(path):
        raise UserError(
            f"{path} is finished at step {earlier.step} and has no training state (not kept, or "
            f"pruned), so it cannot go on to {steps}; start over with --no-resume, and add "
            "--set run.keep_training_state=true if it is 1 GiB or more"
        )
    return False


class TooShort(UserError):
    """A run is already beyond the steps asked for: a slip, after which it is as it was."""


def newest_checkpoint(
    path: Path, steps: int, context: DistributedContext = SINGLE_PROCESS
) -> dict[str, Any] | None:
    """Return the newest whole checkpoint, the same on every process; None if there never was one.

    Raises:
        UserError: all are damaged, it is already beyond the steps asked for, or this process sees
            another one than the main process.
    """
    folder = path / CHECKPOINTS
    step, state = Checkpoints(folder).latest() or (0, None)
    main_step = context.broadcast(step)
    if main_step == 0:  # whatever lies in a folder of this machine is not of this run
        return None
    if step != main_step:
        raise UserError(
            f"the checkpoint of step {main_step} is not in {folder} of this machine; all "
            "processes must see one folder of runs"
        )
    if step > steps:
        raise TooShort(
            f"{path} is already at step {step}, beyond the {steps} asked for; choose another "
            "--name or --out"
        )
    return state
