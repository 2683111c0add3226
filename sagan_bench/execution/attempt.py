"""One attempt at a run: in a slot, to its end, whatever that is."""

import gc
import traceback

import torch

from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import MachineError, UserError, machine_error
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.execution.slots import Slot
from sagan_bench.runs.command import Command
from sagan_bench.runs.records import Record, Status
from sagan_bench.session import command, experiment, failures
from sagan_bench.session.events import Stop, Stopped, Watch


def placed(job: Job, slot: Slot) -> Job:
    """Return a job as it runs in a slot: device, threads, and how many share the device.

    A run that was interrupted keeps the threads that it had: their number changes last bits.
    """
    threads = experiment.threads_of(job.path) or slot.threads
    if isinstance(job.config, Command):
        placed_config = job.config.placed(slot.device, threads, slot.shared_by)
        return Job(job.id, placed_config, job.path, job.digest)
    settings = {"run.device": slot.device, "run.cells_on_device": slot.shared_by}
    if experiment.threads_of(job.path) is None:
        settings["run.threads"] = job.config.run.threads or slot.threads
    config = override(job.config, {key: ("engine", value) for key, value in settings.items()})
    own = tuple(extensions.require(config.own, job.path))
    return Job(job.id, config, job.path, job.digest, own=own)


def attempt(job: Job, watch: Watch, stop: Stop) -> Ended:
    """Make a run to its end; all ends but the interpreter's own are recorded."""
    try:
        for extension in job.own:
            extensions.load_again(extension)
        record = _made(job, watch, stop)
        return Ended(record.status, record.reason)
    except Stopped as stopped:
        return Ended(Status.INTERRUPTED, str(stopped))
    except (MachineError, OSError) as error:
        failure = machine_error(error) if isinstance(error, OSError) else error
        return note_failure(job, str(failure), lost=True)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this run's result
        trace = "" if isinstance(error, UserError) else traceback.format_exc()
        return note_failure(job, extensions.told(error), trace)
    finally:
        if isinstance(job.config, RunConfig) and job.config.training.compile:
            torch.compiler.reset()  # the next run's networks are others
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _made(job: Job, watch: Watch, stop: Stop) -> Record:
    """Return the record of a run once that is made.  Raises as what makes it."""
    if isinstance(job.config, Command):
        return command.run(job.config, out=job.path, watch=watch, stop=stop)
    return experiment.run(job.config, out=job.path, watch=watch, stop=stop)


def note_failure(job: Job, reason: str, trace: str = "", *, lost: bool = False) -> Ended:
    """Record that a run failed, or was ``lost`` to the machine, and return how it ended."""
    if isinstance(job.config, Command):
        blank = job.config.record(job.path)
    else:
        blank = failures.unstarted(job.config, job.digest, job.path)
    status = failures.note_failure(blank, job.path, reason, trace, lost=lost)
    return Ended(status, reason)
