"""From a configuration to the record of its run: train and score, or score once more."""

import time
from contextlib import suppress
from pathlib import Path

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext, is_lost_peer
from sagan_bench.core.errors import MachineError, UserError, machine_error
from sagan_bench.runs import records
from sagan_bench.runs.records import Record
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session.cell import Cell
from sagan_bench.session.events import Stop, Stopped, Watch
from sagan_bench.session.failures import end_attempt, is_over, note_failure
from sagan_bench.session.follower import follow
from sagan_bench.session.planning import Plan, dry_run, plan, run_path
from sagan_bench.session.rescoring import evaluate
from sagan_bench.training.checkpoint import Checkpoints

__all__ = [
    "Plan",
    "assist",
    "dry_run",
    "evaluate",
    "note_failure",
    "plan",
    "run",
    "run_path",
    "threads_of",
]


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    fresh: bool = False,
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> Record:
    """Train, score and record one configuration; go on where an earlier attempt was cut off.

    Args:
        config: resolved, without ``auto``.
        out: the run's directory; by default `run_path`'s.
        fresh: move what is there aside and start over.
        watch: sees every event.
        stop: asked after each step; a reason makes the run checkpoint and raise `Stopped`.
        context: of the processes that train this run, the leader; the others call `assist`.

    Returns:
        The record, of status ``finished`` or ``diverged``; the one on disk if nothing was missing.

    Raises:
        UserError: a configuration, data or directory that cannot be used.
        Stopped: ``stop`` asked for it.
    """
    began = time.perf_counter()
    planned = plan(config, out, watch=watch, stop=stop)
    context.barrier()  # the others open what was prepared
    data_sec = time.perf_counter() - began
    dumped = config.model_dump(mode="json")
    with RunDirectory(planned.path, digest=planned.digest, config=dumped, fresh=fresh) as directory:
        earlier = records.read(planned.path) if directory.record_file.exists() else None
        complete = earlier is not None and _is_complete(earlier, config.run.steps, planned.path)
        context.broadcast(complete)
        if earlier is not None and complete:
            _clear_leftovers(directory, config, earlier)
            return earlier
        cell = Cell(
            config,
            planned.layout,
            planned.store,
            directory,
            earlier,
            data_sec=data_sec,
            watch=watch,
            stop=stop,
            context=context,
        )
        try:
            return cell.run()
        except (OSError, MachineError) as error:
            failure = machine_error(error) if isinstance(error, OSError) else error
            with suppress(OSError, UserError):  # where that cannot be written, it reads as killed
                end_attempt(directory, config, planned.digest, str(failure), lost=True)
            if failure is error:
                raise
            raise failure from error
        except Exception as error:
            if context.world_size > 1 and is_lost_peer(error):
                gone = "another process of the run is gone"
                end_attempt(directory, config, planned.digest, gone, lost=True)
            elif not isinstance(error, Stopped) and not is_over(directory):
                cell.write("failed", f"{type(error).__name__}: {error}")
            raise


def assist(
    config: RunConfig,
    context: DistributedContext,
    *,
    out: Path | None = None,
    stop: Stop = lambda: None,
) -> None:
    """Take part in a run that another process leads by `run`; nothing is written here.

    Raises:
        UserError: as `run`, or the leader's checkpoints are not to be seen from here.
        Stopped: any of the processes was asked to stop.
    """
    context.barrier()
    planned = plan(config, out, watch=lambda event: None)
    if not context.broadcast(False):
        follow(config, planned.store, context, Checkpoints(planned.path / "checkpoints"), stop)


def _clear_leftovers(directory: RunDirectory, config: RunConfig, record: Record) -> None:
    """Remove the checkpoints of a finished run that was killed before it did so."""
    if record.status == "finished" and not config.run.keep_training_state:
        Checkpoints(directory.checkpoints).clear()


def threads_of(path: Path) -> int | None:
    """Return the CPU threads of a run's last attempt; None if there was none."""
    attempts = records.read(path).attempts if (path / records.RECORD).exists() else ()
    return attempts[-1].threads if attempts else None


def _is_complete(earlier: Record, steps: int, path: Path) -> bool:
    """Return whether nothing is left to do.

    Raises:
        UserError: the run went further than asked, or cannot be extended.
    """
    if earlier.status == "diverged":
        return True
    if earlier.status != "finished" or earlier.step == steps:
        return earlier.status == "finished"
    if earlier.step > steps:
        raise UserError(
            f"{path} is finished at step {earlier.step}, and {steps} were asked for; choose "
            "another --name or --out for a shorter run"
        )
    if Checkpoints(path / "checkpoints").latest() is None:
        raise UserError(
            f"{path} is finished at step {earlier.step} and kept no optimizer state, so it cannot "
            f"go on to {steps}; start over with --no-resume, and add "
            "--set run.keep_training_state=true to a run that may be extended"
        )
    return False
