"""From what is asked for to searches that can begin, or go on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.config.layers import for_host
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import known_fingerprint
from sagan_bench.experiments.tuning import looking
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest, masked
from sagan_bench.experiments.tuning.findings import Findings, of_tuning
from sagan_bench.experiments.tuning.trials import TrialRun, searches
from sagan_bench.experiments.tuning.winners import best_name, write_best

if TYPE_CHECKING:  # torch: what is finished is recognised without it
    from sagan_bench.execution.engine import Engine
    from sagan_bench.experiments.driver import Watch
    from sagan_bench.session.events import Stop


def plan(
    requested: Tuning,
    folder: Path,
    host: Callable[[RunConfig], Host],
    *,
    trials: int,
    storage: str | None = None,
    confirm: bool = True,
) -> TuningManifest:
    """Return the tuning in a folder as it would go on, or begin.  Nothing is touched.

    Args:
        requested: as it is asked for now; variants and searches may be added.
        folder: where it is, or will be.
        host: what the machine offers to a configuration; asked only if the tuning is new.
        trials: of each search, in all.
        storage: URL of a database; None is a journal in the folder.
        confirm: whether to train the best again.

    Raises:
        UserError: another tuning is there, or what is asked for cannot be.
    """
    manifest = TuningManifest.of(folder)
    requested.refuse_misnamed()
    requested.refuse_pruner(max(trials, manifest.trials if manifest else 0))
    if manifest is None:
        variant = requested.variants[0]
        requests = [requested.requested(name, 0).config for name in requested.variants]
        auto = host(for_host(requests))
        known = known_fingerprint(DataSpec.of(requested.config(variant, 0, auto).data)) or ""
        rest = {"storage": masked(storage), "trials": trials, "confirm": confirm}
        return TuningManifest.begun(requested, auto, known, **rest)
    if manifest.storage != masked(storage):
        raise UserError(
            f"the trials of {folder} are in {manifest.storage or 'its journal'}; give --storage "
            "accordingly, or choose another --name"
        )
    manifest.refuse_other(requested, folder)
    now = {
        "tuning": manifest.tuning.extended(requested),
        "trials": max(manifest.trials, trials),
        "confirm": confirm or manifest.confirm,
    }
    return manifest.model_copy(update=now)


def refuse_impossible(manifest: TuningManifest, folder: Path) -> None:
    """Refuse a space with values that a run of a variant cannot have, or its networks lack.

    Each choice and bound is tried with the preset's own values of the rest.

    Raises:
        UserError: which.
    """
    from sagan_bench.models.build import layers  # a second of torch

    for search in searches(manifest, folder):
        own = search.own_values()
        for key, parameter in search.parameters.items():
            for end in parameter.ends:
                try:
                    config = manifest.tuning.config(
                        search.variant, 0, manifest.auto, params={**own, key: end}
                    )
                    if key.startswith("model."):
                        layers(config)
                except UserError as error:
                    raise UserError(f"space {manifest.tuning.space.name}: {error}") from error


def with_data(
    manifest: TuningManifest, folder: Path, progress: OnProgress = unwatched
) -> TuningManifest:
    """Prepare the data, and return the manifest with their fingerprint.

    Raises:
        UserError: they cannot be used, or are not what the tuning was begun with.
    """
    config = manifest.tuning.config(manifest.tuning.variants[0], 0, manifest.auto)
    return manifest.with_data(config, folder, progress)


def is_over(manifest: TuningManifest, findings: Findings) -> bool:
    """Return whether nothing is left to do: told without asking anything of the machine."""
    wanted = looking.wanted(manifest, findings.searches)
    there = {(search.variant, search.index) for search in findings.searches}
    return wanted <= there and all(
        looking.has_ended(manifest, search)
        for search in findings.searches
        if (search.variant, search.index) in wanted
    )


def run(
    manifest: TuningManifest,
    folder: Path,
    engine: "Engine",
    watch: "Watch[TrialRun]",
    stop: "Stop",
    *,
    storage: str | None = None,
    timeout_sec: float | None = None,
    retry: bool = False,
) -> None:
    """Search, confirm, and write what ``train --from-study`` reads.

    Args:
        manifest: with its data prepared.
        folder: held by this process.
        engine: where runs are made; left open.
        watch: sees each run that begins (None) and every event of it.
        stop: asked often; a reason stops all runs after a checkpoint.
        storage: URL of a database; None is a journal in the folder.
        timeout_sec: no trial begins later.
        retry: make runs on fresh seeds that failed once more; of set A only before set B is begun.

    Raises:
        UserError: the storage cannot be used.
        Stopped: ``stop`` asked for it.
    """
    from sagan_bench.experiments.tuning.driving import Searcher, drive
    from sagan_bench.experiments.tuning.storage import opened

    before = TuningManifest.of(folder)
    writable = opened(folder, storage, writing=True)
    searchers = [Searcher(search, writable, retry=retry) for search in searches(manifest, folder)]
    if before and any(searcher.search.is_reported for searcher in searchers):
        looks = manifest.looks + (_size(manifest) != _size(before))
        if any(searcher.chooses_again for searcher in searchers):
            looks = max(1, looks)  # however often that is stopped and gone on with
        manifest = manifest.model_copy(update={"looks": looks})
    manifest.write(folder)  # only now: a folder that remembers has a journal
    for variant in manifest.tuning.variants:  # until the search is over again, there is none
        (folder / best_name(variant)).unlink(missing_ok=True)
    drive(manifest, searchers, engine, watch, stop, timeout_sec)
    write_best(manifest, folder, of_tuning(folder, storage))


def _size(manifest: TuningManifest) -> tuple[int, int]:
    """Return how much a tuning asks for: more of it, when a set B was seen, is a look.

    More searches are none: their looks are paid for.
    """
    return manifest.trials, len(manifest.tuning.variants)
