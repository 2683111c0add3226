"""What a run will be, known before it starts: its networks, its data, its name and its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.checks import check
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store, known_fingerprint
from sagan_bench.evaluation import conditions
from sagan_bench.models.build import Layout, layout
from sagan_bench.runs import records
from sagan_bench.runs.records import Record
from sagan_bench.runs.run_directory import read_now
from sagan_bench.session.capabilities import refuse_compiling
from sagan_bench.session.events import Stop, Watch, followed


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
    progress = followed("data", watch, stop)
    store = prepare(DataSpec.of(config.data), progress=progress, skip_bad=config.run.skip_bad)
    classes = config.model.classes
    check(
        store.manifest,
        batch_size=config.training.batch_size,
        conditional=bool(classes),
        classes=classes,
    )
    conditions.check(config, store)
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
    if earlier:
        _refuse_other(earlier, config, fingerprint, path)
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


def _refuse_other(
    earlier: Record, config: RunConfig, fingerprint: str | None, path: Path | None
) -> None:
    """Refuse a folder with another run; images of unknown content are taken for those it saw."""
    seen = fingerprint or (earlier.data.fingerprint if earlier.data else None)
    digest = config.digest(seen) if seen else earlier.config_digest
    if earlier.config_digest != digest:
        raise UserError(f"{path} holds another run ({earlier.config_digest}, not {digest})")
