"""Where trials are kept: Optuna's journal beside the runs, or a database; pruners.

Only the driver writes.  Trials are the single truth of what was asked and told; what a run did is
in its record.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, assert_never

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SAMPLERS
from sagan_bench.core.stored import UNFIT, damaged, first_trouble, fitting, parsed, refuse_special
from sagan_bench.experiments.tuning.definition import Tuning, better
from sagan_bench.runs.environment import without_secrets

T = TypeVar("T")
JOURNAL = "optuna.journal.log"
PRUNER_STARTUP = 5
"""Finished trials before any is pruned, and values at a step before one is compared with them."""
PRUNER_WARMUP = 1 / 3
"""Share of the budget within which none is pruned: GANs cross over early."""
PERCENTILE = 75.0
"""The best so many percent go on."""


def opened(folder: Path, url: str | None, *, writing: bool = False) -> BaseStorage:
    """Return the storage of a tuning; ``writing`` is for the one process that holds the folder.

    Raises:
        UserError: the database cannot be reached, or there is no journal to read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        journal = (folder / JOURNAL).absolute()
        if journal.exists():
            refuse_special(journal)
        if writing:
            folder.mkdir(parents=True, exist_ok=True)
            _mend(journal)
        elif not journal.exists():
            raise UserError(f"{journal} is missing; give --storage URL, or begin with `tune`")
        if journal.exists():
            _refuse_damaged(journal)
        backend = JournalFileBackend(str(journal))
        return fitting(lambda: JournalStorage(backend), journal)  # which replays all of it
    try:
        return RDBStorage(url)
    except Exception as error:  # of any database driver
        text = " ".join(map(without_secrets, str(error).split(" ")))
        raise UserError(f"--storage: {type(error).__name__}: {text}") from error


def _refuse_damaged(journal: Path) -> None:
    """Refuse a journal in which a line before the last is no entry.

    Optuna takes the first such line for the end, or fails on it.

    Raises:
        UserError: which line.
    """
    try:
        lines = journal.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {journal}: {error.strerror}") from error
    for number, line in enumerate(lines[:-1], start=1):  # the last one may be being written
        try:
            entry = parsed(line)
        except ValueError as error:
            raise damaged(journal, f"line {number}: {error}") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("op_code"), int):
            raise damaged(journal, f"line {number}: no entry of a journal")


def _mend(journal: Path) -> None:
    """Undo what a killed driver left: a lock that nobody holds, and a torn last line.

    Optuna waits for such a lock, for ever if the journal's path is relative, because the lock is a
    symbolic link to it.  Whatever were appended to a torn line would make the journal unreadable.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    for renamed in journal.parent.glob(f"{journal.name}.lock*.rename"):  # just before its removal
        renamed.unlink(missing_ok=True)
    whole = journal.read_bytes().rpartition(b"\n") if journal.exists() else ()
    if whole and whole[2]:
        os.truncate(journal, len(whole[0]) + len(whole[1]))


def begun(
    storage: BaseStorage, name: str, tuning: Tuning, search: int, definition: Mapping[str, Any]
) -> optuna.Study:
    """Return the Optuna study of a search, new or as it was left.

    Args:
        storage: opened for writing.
        name: of the study.
        tuning: sampler, pruner and directions.
        search: its index, from which its sampler is seeded.
        definition: kept with the study.

    Raises:
        UserError: the storage has another search under this name.
    """
    wanted = {"lower": StudyDirection.MINIMIZE, "higher": StudyDirection.MAXIMIZE}
    directions = [wanted[better(objective)] for objective in tuning.objectives]
    study = optuna.create_study(
        storage=storage, study_name=name, directions=directions, load_if_exists=True
    )
    stored = study.user_attrs.get("definition")
    if stored is None:
        study.set_user_attr("definition", dict(definition))
    elif stored != definition:
        differ = [k for k in {**stored, **definition} if stored.get(k) != definition.get(k)]
        raise UserError(
            f"the storage has another search called {name}, with other {', '.join(differ)}; "
            "choose another --name"
        )
    study.sampler = sampler(tuning, search, len(study.get_trials(deepcopy=False)))
    study.pruner = pruner(tuning)
    return study


def read(storage: BaseStorage, name: str) -> optuna.Study | None:
    """Return a search's study to look at; None if it was never begun."""
    try:
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        return None


def sound(read_it: Callable[[], T], name: str) -> T:
    """Return what is read of a search.

    Raises:
        UserError: the storage is damaged there.
    """
    try:
        return read_it()
    except UNFIT as error:
        raise UserError(
            f"the trials of {name} cannot be read ({first_trouble(error)}); restore the storage "
            "from a copy, or choose another --name"
        ) from error


def sampler(tuning: Tuning, search: int, existing: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a search that has so many trials.

    Its seed depends on their number: with one seed, a search that goes on would propose again what
    it proposed first.  A search that was cut off is therefore not the one it would have been.
    """
    seed = int(np.random.SeedSequence([search, existing]).generate_state(1)[0])
    made: optuna.samplers.BaseSampler = SAMPLERS[tuning.sampler]().make(seed, search)
    return made


def pruner(tuning: Tuning) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are generator updates."""
    match tuning.pruner:
        case "percentile":
            return _percentile(PERCENTILE, tuning)
        case "median":
            return _percentile(50.0, tuning)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=tuning.eval_every, max_resource=tuning.steps, reduction_factor=3
            )
        case "none":
            return optuna.pruners.NopPruner()
        case unknown:
            assert_never(unknown)


def _percentile(share: float, tuning: Tuning) -> optuna.pruners.BasePruner:
    return optuna.pruners.PercentilePruner(
        share,
        n_startup_trials=PRUNER_STARTUP,
        n_warmup_steps=int(PRUNER_WARMUP * tuning.steps),
        n_min_trials=PRUNER_STARTUP,
    )
