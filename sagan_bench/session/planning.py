"""What a run will be, known before it starts: its networks, its data, its name and its folder."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan_bench.config.diff import in_results
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.distributed import launched
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import TRACKERS
from sagan_bench.data.building import prepare
from sagan_bench.data.checks import check
from sagan_bench.data.foreseeing import foresee
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Manifest, Store
from sagan_bench.evaluation import conditions
from sagan_bench.evaluation.foreseeing import ScoringAhead, Where, ahead
from sagan_bench.models.build import Layout, layout
from sagan_bench.runs import records
from sagan_bench.runs.keeping import keeps, state_bytes
from sagan_bench.runs.records import Record
from sagan_bench.runs.run_directory import RunDirectory, read_now
from sagan_bench.session import beginning
from sagan_bench.session.capabilities import refuse_compiling, threads_for
from sagan_bench.session.events import Stop, Watch, followed
from sagan_bench.session.resuming import is_complete, newest_checkpoint
from sagan_bench.training.draws import dtype_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run will be called, where it will be and what it trains, known before it starts."""

    config: RunConfig
    layout: Layout
    store: Store
    digest: str
    path: Path


UNKNOWN = "<its-digest>"
"""What stands for a digest that is not known yet, and is as long."""


def run_path(config: RunConfig, digest: str | None, out: Path | None) -> Path:
    """Return ``out``, or else ``runs/<name>-s<seed>-<digest>``."""
    return out or Path("runs") / f"{config.name}-s{config.seed}-{digest or UNKNOWN}"


def plan(
    config: RunConfig, out: Path | None = None, *, watch: Watch, stop: Stop = lambda: None
) -> Plan:
    """Check the networks, prepare the data, check that it can be scored, and name the run.

    Raises:
        UserError: an impossible network, no compiler for it, or data that cannot be used.
        Stopped: ``stop`` asked for it while data was prepared.
    """
    networks = _possible(config)  # refuses before any data is made
    config = beginning.settled(config)
    progress = followed("data", watch, stop)
    store = prepare(DataSpec.of(config.data), progress=progress, skip_bad=config.run.skip_bad)
    _usable(config, store.manifest)
    digest = config.digest(store.manifest.fingerprint())
    path = run_path(config, digest, out)
    beginning.refuse_unnamed(config, path)
    if config.steps_matter and not path.exists():
        _say_of_other_lengths(config, path)
    return Plan(config, networks, store, digest, path)


def _say_of_other_lengths(config: RunConfig, path: Path) -> None:
    """Say where the same run of other steps is: this is another, and does not go on with it."""
    siblings = path.parent.glob(f"{config.name}-s{config.seed}-*/{records.RECORD}")
    for other in sorted(file.parent for file in siblings):
        with suppress(UserError, ValueError):  # whatever is there is not this run's to judge
            record = records.read(other)
            if not in_results(config, RunConfig.model_validate(record.config)):
                _log.warning(
                    "%s is of %d steps, and this run of %d is another, from its first step: a "
                    "block of kind %s is told of how many there are",
                    other, record.steps, config.run.steps, config.model.attention.kind,
                )  # fmt: skip


def dry_run(config: RunConfig, out: Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Return what `run` would do, without touching anything.

    The digest, and with it the folder, is null while the data's content is unknown; ``unchecked``,
    where there is any, is what a run may still be refused for.

    Raises:
        UserError: as `run` before its first step, where that is known by now.
    """
    networks = _possible(config)
    config = beginning.settled(config)
    data = foresee(DataSpec.of(config.data), skip_bad=config.run.skip_bad)
    unchecked = [*data.unchecked, *_usable(config, data.manifest, look=True)]
    digest = config.digest(data.fingerprint) if data.fingerprint else None
    path = run_path(config, digest, out)
    earlier = _earlier(config, digest, path, fresh=fresh)
    if earlier is None:
        beginning.refuse_unnamed(config)
    planned: dict[str, Any] = {
        "run": str(path) if digest or out else None,
        "digest": digest,
        "state": earlier.status if earlier else "new",
        "step": earlier.step if earlier else 0,
        "steps": config.run.steps,
        "data_fingerprint": data.fingerprint,
        "device": str(system.device(config.run.device)),
        "precision": config.training.precision,
        "parameters": sum(layer.parameters for layer in networks.layers),
        "flops_per_step": networks.flops_per_step,
        "training_state": _kept(config, networks),
    }
    if config.training.init_sha256:
        planned["init_from"] = config.run.init_from
    if not (earlier and is_complete(earlier, config.run.steps, path)):
        planned["scoring"] = _ahead(config, data.manifest, earlier)._asdict()
    return planned | ({"unchecked": unchecked} if unchecked else {})


def _kept(config: RunConfig, networks: Layout) -> dict[str, Any]:
    """Return about how large the training state will be, and whether it stays when it is over."""
    g, d = networks.parameters("generator"), networks.parameters("discriminator")
    size = state_bytes(g, d, dtype_of(config).itemsize)
    return {"bytes": size, "kept": keeps(config.run.keep_training_state, size)}


def _ahead(config: RunConfig, manifest: Manifest, earlier: Record | None) -> ScoringAhead:
    """Return what will have to be scored, where this process would score it."""
    device, context = system.device(config.run.device), launched()
    threads = threads_for(config, earlier, context)
    where = Where(device.type, system.device_name(device), threads, context.world_size)
    return ahead(config, manifest, where, done=earlier.step if earlier else 0)


def _possible(config: RunConfig) -> Layout:
    """Return the networks, where this machine can train them.  Raises `UserError` if not."""
    networks = layout(config)
    system.device(config.run.device)
    refuse_compiling(config)
    for tracker in config.run.trackers:
        TRACKERS[tracker].require()
    return networks


def _usable(config: RunConfig, manifest: Manifest, *, look: bool = False) -> list[str]:
    """Refuse data that cannot be trained on or scored; return as `conditions.check`."""
    classes = config.model.classes
    check(
        manifest,
        batch_size=config.training.batch_size,
        conditional=bool(classes),
        classes=classes,
    )
    return conditions.check(config, manifest, look=look)


def _earlier(config: RunConfig, digest: str | None, path: Path, *, fresh: bool) -> Record | None:
    """Return the record with which a run would go on, if there is any and it can.

    Images of unknown content are taken for those that the run in the folder saw.
    """

    def look(digest: str | None) -> None:
        dumped = config.model_dump(mode="json")
        RunDirectory(path, digest=digest, config=dumped, fresh=fresh).look()

    look(digest)
    record = read_now(path) if (path / records.RECORD).exists() and not fresh else None
    if digest is None and record and record.data:
        look(config.digest(record.data.fingerprint))
    if record and not is_complete(record, config.run.steps, path):
        newest_checkpoint(path, config.run.steps)
    return record
