"""From a configuration to the record of its run: train and score, or score once more."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext, is_lost_peer
from sagan_bench.core.errors import MachineError, machine_error
from sagan_bench.runs import records
from sagan_bench.runs.log import LOG, heading, logged_to
from sagan_bench.runs.records import Record, Status
from sagan_bench.session.capabilities import emulated
from sagan_bench.session.events import Stop, Stopped, Watch
from sagan_bench.session.planning import dry_run, plan
from sagan_bench.session.rescoring import evaluate
from sagan_bench.session.resuming import TooShort, is_complete
from sagan_bench.session.session import RunSession
from sagan_bench.session.writer import Writer, opened

__all__ = ["dry_run", "evaluate", "run", "threads_of"]

_log = logging.getLogger(__name__)


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
        watch: sees every event, on the main process.
        stop: asked after each step; a reason makes the run checkpoint and raise `Stopped`.
        context: of the processes that train this run, which one this is; all of them call this.

    Returns:
        The record, of status ``finished`` or ``diverged``; the one on disk if nothing was missing.

    Raises:
        UserError: a configuration, data or directory that cannot be used.
        Stopped: ``stop`` asked for it.
    """
    began = time.perf_counter()
    own = extensions.require(config.own, out)
    with context.main_process_first():  # the others open what it prepared
        planned = plan(config, out, watch=watch, stop=stop)
    data_sec = time.perf_counter() - began
    with opened(planned, watch, context, fresh=fresh) as writer:
        earlier = writer.earlier
        if writer.path:
            extensions.leave(own, writer.path)
        complete = earlier is not None and is_complete(earlier, config.run.steps, planned.path)
        if context.broadcast(complete):
            record = earlier or records.read(planned.path)
            writer.end_finished(record)  # one that was killed before it did so
            return record
        if context.is_main_process and (slow := emulated(config)):
            _log.warning("%s", slow)
        session = RunSession(planned, writer, data_sec=data_sec, stop=stop, context=context)
        if writer.path is None:
            return _recorded(session, writer)
        with logged_to(writer.path / LOG) as add:
            return _logged(session, writer, add)


def _logged(session: RunSession, writer: Writer, add: Callable[[str], None]) -> Record:
    """Return the record of a session, whose beginning and end are lines of its log."""
    add(heading(session.keeper.attempt))
    try:
        record = _recorded(session, writer)
    except Exception as error:
        add(f"--- {type(error).__name__}: {error}")
        raise
    add(f"--- {record.status}{f': {record.reason}' if record.reason else ''}")
    return record


def _recorded(session: RunSession, writer: Writer) -> Record:
    """Return the record of a session; an error is recorded, and raised."""
    try:
        return session.run()
    except TooShort:
        raise
    except (OSError, MachineError) as error:
        failure = machine_error(error) if isinstance(error, OSError) else error
        writer.end_lost(str(failure))
        if failure is error:
            raise
        raise failure from error
    except Exception as error:
        if session.context.world_size > 1 and is_lost_peer(error):
            writer.end_lost("another process of the run is gone")
        elif not isinstance(error, Stopped) and not writer.is_over():
            session.write(Status.FAILED, extensions.told(error))
        raise


def threads_of(path: Path) -> int | None:
    """Return the CPU threads of a run's last attempt; None if there was none."""
    attempts = records.read(path).attempts if (path / records.RECORD).exists() else ()
    return attempts[-1].threads if attempts else None
