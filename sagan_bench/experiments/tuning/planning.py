"""From what is asked for to searches that can begin, or go on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data import building
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import known_fingerprint
from sagan_bench.experiments.tuning.definition import Memory, Tuning, exported, grown, masked
from sagan_bench.experiments.tuning.findings import Findings, looked, of_tuning
from sagan_bench.experiments.tuning.trials import searches

if TYPE_CHECKING:  # torch: what is finished is recognised without it
    from sagan_bench.execution.engine import Engine
    from sagan_bench.experiments.tuning.driving import Watch
    from sagan_bench.session.events import Stop


def plan(
    asked: Tuning,
    folder: Path,
    host: Callable[[RunConfig], Host],
    *,
    trials: int,
    storage: str | None = None,
    confirm: bool = True,
) -> Memory:
    """Return the tuning in a folder as it would go on, or begin.  Nothing is touched.

    Args:
        asked: as it is asked for now; variants and searches may be added.
        folder: where it is, or will be.
        host: what this machine offers; asked only if the tuning is new.
        trials: of each search, in all.
        storage: URL of a database; None is a journal in the folder.
        confirm: whether to train the best again.

    Raises:
        UserError: another tuning is there, or what is asked for cannot be.
    """
    memory = Memory.of(folder)
    asked.refuse_pruner(max(trials, memory.trials if memory else 0))
    if memory is None:
        auto = host(asked.asked(asked.variants[0], 0).config)
        fingerprint = known_fingerprint(_spec(asked, auto)) or ""
        memory = Memory.begun(
            asked,
            auto,
            data_fingerprint=fingerprint,
            storage=masked(storage),
            trials=trials,
            confirm=confirm,
        )
    elif memory.storage != masked(storage):
        raise UserError(
            f"the trials of {folder} are in {memory.storage or 'its journal'}; give --storage "
            "accordingly, or choose another --name"
        )
    now = {
        "tuning": grown(memory, asked, folder),
        "trials": max(memory.trials, trials),
        "confirm": confirm or memory.confirm,
    }
    return memory.model_copy(update=now)


def _spec(tuning: Tuning, auto: Host) -> DataSpec:
    return DataSpec.of(tuning.config(tuning.variants[0], 0, auto).data)


def refuse_impossible(memory: Memory, folder: Path) -> None:
    """Refuse a space with values that a run of a variant cannot have, or its networks lack.

    Each choice and bound is tried with the preset's own values of the rest.

    Raises:
        UserError: which.
    """
    from sagan_bench.models.build import layers  # a second of torch

    for search in searches(memory, folder):
        own = search.own_values()
        for key, parameter in search.parameters.items():
            for end in parameter.ends:
                try:
                    config = memory.tuning.config(
                        search.variant, 0, memory.auto, params={**own, key: end}
                    )
                    if key.startswith("model."):
                        layers(config)
                except UserError as error:
                    raise UserError(f"space {memory.tuning.space.name}: {error}") from error


def with_data(memory: Memory, folder: Path, progress: OnProgress = unwatched) -> Memory:
    """Prepare the data, and return the memory with their fingerprint.

    Raises:
        UserError: they cannot be used, or are not what the tuning was begun with.
    """
    spec = _spec(memory.tuning, memory.auto)
    fingerprint = building.prepare(spec, progress=progress).manifest.fingerprint()
    if memory.data_fingerprint not in ("", fingerprint):
        raise UserError(
            f"the images are not those that the tuning in {folder} was begun with; choose another "
            "--name for a tuning of these"
        )
    return memory.model_copy(update={"data_fingerprint": fingerprint})


def is_over(memory: Memory, found: Findings) -> bool:
    """Return whether nothing is left to do: told without asking anything of the machine."""
    expected = memory.tuning.searches * len(memory.tuning.variants)
    return len(found.searches) == expected and all(
        len(one.trials) >= memory.trials
        and not one.budget.trials["running"]
        and not (memory.confirm and one.missing)
        for one in found.searches
    )


def run(
    memory: Memory,
    folder: Path,
    engine: "Engine",
    watch: "Watch",
    stop: "Stop",
    *,
    storage: str | None = None,
    timeout_sec: float | None = None,
    retry: bool = False,
) -> None:
    """Search, confirm, and write what ``train --from-study`` reads.

    Args:
        memory: with its data prepared.
        folder: held by this process.
        engine: where runs are made; left open.
        watch: sees each run that begins (None) and every event of it.
        stop: asked often; a reason stops all runs after a checkpoint.
        storage: URL of a database; None is a journal in the folder.
        timeout_sec: no trial begins later.
        retry: make runs on fresh seeds that failed once more.

    Raises:
        UserError: the storage cannot be used.
        Stopped: ``stop`` asked for it.
    """
    from sagan_bench.experiments.tuning.driving import Searcher, drive
    from sagan_bench.experiments.tuning.storage import opened

    before = Memory.of(folder)
    writable = opened(folder, storage, writing=True)
    searchers = [Searcher(search, writable, retry=retry) for search in searches(memory, folder)]
    if before and _is_seen(of_tuning(folder, storage)):
        again = any(one.chooses_again for one in searchers)
        looks = memory.looks + (_is_more(memory, before) or again)
        memory = memory.model_copy(update={"looks": looks})
    memory.write(folder)  # only now: a folder that remembers has a journal
    for variant in memory.tuning.variants:  # until the search is over again, there is none
        (folder / best_name(variant)).unlink(missing_ok=True)
    drive(searchers, engine, watch, stop, timeout_sec)
    write_best(memory, folder, of_tuning(folder, storage))


def _is_seen(found: Findings) -> bool:
    """Return whether figures on a set B can be seen."""
    return any(one.winner and one.winner.on_b for one in found.searches)


def _is_more(memory: Memory, before: Memory) -> bool:
    """Return whether a tuning asks for trials, searches or variants that it did not before."""
    now, then = memory.tuning, before.tuning
    asked = (memory.trials, now.searches, len(now.variants))
    return asked != (before.trials, then.searches, len(then.variants))


def write_best(memory: Memory, folder: Path, found: Findings) -> None:
    """Write ``best-<variant>.toml``, where it is not there, for each variant with a winner."""
    for variant in memory.tuning.variants:
        file, text = folder / best_name(variant), best(memory, found, variant)
        if text and not file.exists():
            atomic_write(file, text.encode())


def best_name(variant: str) -> str:
    """Return the name of the file with a variant's winner."""
    return f"best-{variant}.toml"


def best(memory: Memory, found: Findings, variant: str) -> str | None:
    """Return a variant's winner as a file for ``train --config``; None if none is confirmed."""
    one = found.first(variant)
    if one.winner is None or one.missing:
        return None
    name = found.labels[0]
    shown = "none: a run was lost" if one.reported is None else f"{one.reported:.4g}"
    remarks = [
        f"{found.name}: trial {one.chosen} of search {one.id}, "
        f"{found.steps} steps each; a training has the preset's.",
        f"{name} on seeds on which nothing was chosen ({', '.join(map(str, one.winner.on_b))}): "
        f"{shown}; its search said {one.winner.searched:.4g}.",
    ]
    if memory.looks:
        remarks.append(looked(memory.looks))
    return exported(memory.tuning, variant, one.winner.params, remarks)
