"""From a configuration to the record of its run: train and score, or score once more."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import torch

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext, is_lost_peer
from sagan_bench.core.errors import MachineError, UserError, machine_error
from sagan_bench.core.files import atomic_write
from sagan_bench.data.building import prepare
from sagan_bench.data.checks import check
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store, known_fingerprint
from sagan_bench.evaluation import scoring
from sagan_bench.evaluation.metrics import Sample
from sagan_bench.evaluation.scoring import WEIGHTS, Scorer, Weights
from sagan_bench.models.build import Layout, layout, plain_generator
from sagan_bench.runs import records
from sagan_bench.runs.records import RESULTS, Record, Score, Status
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import RunDirectory, read_now
from sagan_bench.session.capabilities import refuse_compiling
from sagan_bench.session.cell import Cell, Progress, Scored, Stop, Stopped, Watch
from sagan_bench.session.follower import follow
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.generation import balanced, sampler

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run will be called, where it will be and what it trains, known before it starts."""

    config: RunConfig
    layout: Layout
    store: Store
    digest: str
    path: Path


def run_path(config: RunConfig, digest: str | None, out: Path | None) -> Path:
    """Return ``out``, or else ``runs/<name>-s<seed>-<digest>``."""
    return out or Path("runs") / f"{config.name}-s{config.seed}-{digest}"


def plan(
    config: RunConfig, out: Path | None = None, *, watch: Watch, stop: Stop = lambda: None
) -> Plan:
    """Check the networks, prepare the data, check that it can be scored, and name the run.

    Raises:
        UserError: an impossible network, no compiler for it, or data that cannot be used.
        Stopped: ``stop`` asked for it while data was prepared.
    """
    networks = layout(config)  # refuses an impossible network before any data is made
    refuse_compiling(config)

    def progress(done: int, total: int) -> None:
        watch(Progress("data", done, total))
        if reason := stop():
            raise Stopped(reason, None)

    store = prepare(DataSpec.of(config.data), progress=progress, skip_bad=config.run.skip_bad)
    classes = config.model.classes
    check(
        store.manifest,
        batch_size=config.training.batch_size,
        conditional=bool(classes),
        classes=classes,
    )
    scoring.check(config, store)
    digest = config.digest(store.manifest.fingerprint())
    return Plan(config, networks, store, digest, run_path(config, digest, out))


def dry_run(config: RunConfig, out: Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Return what `run` would do, without touching anything.

    The digest, and with it the folder, is null while the data's content is unknown.

    Raises:
        UserError: an impossible network, data that is not there, or another run in the folder.
    """
    networks = layout(config)
    fingerprint = known_fingerprint(DataSpec.of(config.data))
    digest = config.digest(fingerprint) if fingerprint else None
    path = run_path(config, digest, out) if digest or out else None
    there = path is not None and (path / records.RECORD).exists() and not fresh
    earlier = read_now(path) if path and there else None
    if earlier and earlier.config_digest != digest:
        raise UserError(f"{path} holds another run ({earlier.config_digest}, not {digest})")
    return {
        "run": str(path) if path else None,
        "digest": digest,
        "state": earlier.status if earlier else "new",
        "step": earlier.step if earlier else 0,
        "steps": config.run.steps,
        "data_fingerprint": fingerprint,
        "device": str(system.device(config.run.device)),
        "precision": config.training.precision,
        "parameters": sum(layer.parameters for layer in networks.layers),
        "flops_per_step": networks.flops_per_step,
    }


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
                _end(directory, config, planned.digest, str(failure), lost=True)
            if failure is error:
                raise
            raise failure from error
        except Exception as error:
            if context.world_size > 1 and is_lost_peer(error):
                gone = "another process of the run is gone"
                _end(directory, config, planned.digest, gone, lost=True)
            elif not isinstance(error, Stopped) and not _is_over(directory):
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


def note_failure(
    config: RunConfig, digest: str, path: Path, reason: str, trace: str = "", *, lost: bool = False
) -> Status:
    """Record that a run failed, if it could not do so itself; ``trace`` goes to ``failure.txt``.

    One that was ``lost`` to a failure of the machine is interrupted, and failed once that has
    happened `LOSSES` times without a step gained.  A run that another process holds, or a folder
    that holds another run, is left alone; so is one that was over before what failed.  Returns the
    status that the run has.
    """
    dumped = config.model_dump(mode="json")
    try:
        with RunDirectory(path, digest=digest, config=dumped) as directory:
            status = _end(directory, config, digest, reason, lost=lost)
            if trace and status == "failed":
                atomic_write(path / "failure.txt", trace.encode())
            return status
    except (UserError, OSError) as error:
        _log.warning("%s: that it failed could not be recorded: %s", path, error)
    return "interrupted" if lost else "failed"


LOSSES = 3
"""Attempts in a row that the machine may break off without a step gained."""


def _end(
    directory: RunDirectory, config: RunConfig, digest: str, reason: str, *, lost: bool
) -> Status:
    """Record in a held directory how an attempt ended, unless the run was over before."""
    path = directory.path
    earlier = records.read(path) if directory.record_file.exists() else None
    if earlier and _is_over(directory):
        _log.warning("%s: %s, after it was over", path, reason)
        return earlier.status
    record = earlier or _unstarted(config, digest, path)
    if lost and (times := _losses(record)) < LOSSES:
        ended = record.model_copy(update={"status": "interrupted", "reason": reason})
    else:
        told = f"{reason} (lost {times} times without a step gained)" if lost else reason
        ended = _failed(record, told)
    directory.write(ended)
    return ended.status


def _losses(record: Record) -> int:
    """Return how many attempts in a row, the last included, were broken off at the same step."""
    last = record.attempts[-1] if record.attempts else None
    same = takewhile(
        lambda one: last and one.outcome is None and one.from_step == last.from_step,
        reversed(record.attempts),
    )
    return sum(1 for _ in same)


def _clear_leftovers(directory: RunDirectory, config: RunConfig, record: Record) -> None:
    """Remove the checkpoints of a finished run that was killed before it did so."""
    if record.status == "finished" and not config.run.keep_training_state:
        Checkpoints(directory.checkpoints).clear()


def _is_over(directory: RunDirectory) -> bool:
    """Return whether the run has a result, which nothing that fails afterwards may replace."""
    return directory.record_file.exists() and records.read(directory.path).status in RESULTS


def _failed(record: Record, reason: str) -> Record:
    *before, last = record.attempts or (None,)
    if last and last.ended is None:
        last = last.model_copy(update={"ended": datetime.now(UTC), "outcome": "failed"})
    attempts = (*before, last) if last else ()
    return record.model_copy(update={"status": "failed", "reason": reason, "attempts": attempts})


def _unstarted(config: RunConfig, digest: str, path: Path) -> Record:
    """Return the record of a run that never came to its first step."""
    return Record(
        run=path.resolve().name,
        name=config.name,
        variant=config.variant,
        seed=config.seed,
        status="failed",
        step=0,
        steps=config.run.steps,
        config=config.model_dump(mode="json"),
        config_digest=digest,
        environment=records.environment(config.run.device),
    )


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


def evaluate(
    path: Path,
    config: RunConfig,
    *,
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
) -> Record:
    """Score a finished run under ``config.evaluation`` and add the scores to its record.

    A score of the same protocol, weights and seed replaces the one before.  The weights are those
    of the run's end, with the statistics they were exported with.

    Raises:
        UserError: the run has no exported weights, or its data cannot be had or has changed.
        Stopped: ``stop`` asked for it; the scores made so far are kept.
    """
    record = records.read(path)
    chosen = system.open_device(config.run.device)
    exported_with = Run(path, record).config.evaluation.bn_batches
    if config.evaluation.bn_batches != exported_with:
        raise UserError(
            f"evaluation.bn_batches = {config.evaluation.bn_batches}: the weights of {path} were "
            f"exported with statistics over {exported_with} batches; leave it as it is"
        )

    def progress(phase: Literal["data", "score"], done: int, total: int) -> None:
        watch(Progress(phase, done, total))
        if reason := stop():
            raise Stopped(reason, path)

    skip_bad, progress_data = config.run.skip_bad, partial(progress, "data")
    store = prepare(DataSpec.of(config.data), progress=progress_data, skip_bad=skip_bad)
    if record.data and store.manifest.fingerprint() != record.data.fingerprint:
        raise UserError(
            f"the images at {config.data.source} are not those that {path} was trained on"
        )
    with RunDirectory(path, digest=record.config_digest, config=record.config) as directory:
        record = records.read(path)
        if not directory.weights.exists():
            raise UserError(
                f"{path} has no exported weights; finish the run first: it is "
                f"{read_now(path).status}"
            )
        exported = checkpoint.load(directory.weights)
        torch.set_num_threads(record.attempts[-1].threads or cpu.cores())
        with system.memory_for("scoring", chosen):
            samples = _samplers(config, exported, chosen, directory.weights)
            scorer = Scorer(config, store, chosen, partial(progress, "score"))
            for score in scorer.scores(
                samples, step=exported["step"], n_fake=config.evaluation.n_fake, final=True
            ):
                store.verification.finish()
                record = record.model_copy(update={"scores": _with(record.scores, score)})
                directory.write(record)
                watch(Scored(score))
    return record


def _samplers(
    config: RunConfig, exported: dict[str, Any], device: torch.device, file: Path
) -> dict[Weights, Sample]:
    """Return the samplers of the weights exported to a file, by which they are."""
    return {
        weights: sampler(
            plain_generator(config, exported[weights], device, file).eval(),
            config.model.z_dim,
            labels=balanced(config.model.classes),
            truncation=config.evaluation.truncation,
        )
        for weights in WEIGHTS
    }


def _with(scores: tuple[Score, ...], new: Score) -> tuple[Score, ...]:
    """Return ``scores`` and ``new``, which takes the place of its like."""

    def identity(score: Score) -> tuple[object, ...]:
        return score.fingerprint, score.sampling_seed, score.step, score.final

    return (*(old for old in scores if identity(old) != identity(new)), new)
