"""Which other studies below the same folder put questions to the same data, and when."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sagan_bench.analysis.question import Entry, Ledger
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.study import MEMORY, StudyManifest
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import RECORD, read

LEVELS = 2
"""Below the folder that holds a study, at which others are looked for."""


def ledger(folder: Path, memory: StudyManifest) -> Ledger | None:
    """Return the other studies of the same data and primary metric; None if there are none.

    Studies of commands are of the same data where their command is the same.

    Args:
        folder: of the study; the others are below the folder that holds it.
        memory: what it keeps.
    """
    about = _about(memory)
    if about is None:
        return None
    others, unreadable = list[tuple[str, Path, StudyManifest]](), list[str]()
    for name, path in _beside(folder):
        try:
            other = StudyManifest.of(path)
            if other and _about(other) == about:
                others.append((name, path, other))
        except UserError:
            unreadable.append(name)
    extensions.recall(memory.study.own)  # others may call another component so
    if not others and not unreadable:
        return None
    own = _ran(folder).begun if others else None
    entries = [_entry(name, other, _ran(path), own) for name, path, other in others]
    entries.sort(key=lambda entry: (entry.begun is None, entry.begun or "", entry.folder))
    return Ledger(tuple(entries), tuple(unreadable), of_command=memory.study.command is not None)


def _about(memory: StudyManifest) -> tuple[str, str] | None:
    """Return the data and the metric of a study; None where its data are not known yet."""
    data = memory.study.command or memory.data_fingerprint
    return (data, memory.study.measure.metric) if data else None


def _beside(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each other study below the folder that holds one: its path from there, and as it is."""
    root = Path(os.path.abspath(folder)).parent  # where it is named, if it is a link
    seen = {os.path.realpath(folder)}
    for path in _studies(root, LEVELS):
        if (real := os.path.realpath(path)) not in seen:
            seen.add(real)
            yield os.fsencode(path.relative_to(root)).decode(errors="replace"), path


def _studies(root: Path, levels: int) -> Iterator[Path]:
    try:
        names = sorted(name for name in os.listdir(root) if name[0] != ".")
    except OSError:
        return
    for path in (root / name for name in names if os.path.isdir(root / name)):
        if os.path.exists(path / MEMORY):
            yield path
        elif levels > 1 and not os.path.exists(path / RECORD):
            yield from _studies(path, levels - 1)


class _Ran(NamedTuple):
    """What a study's records say."""

    seeds: int
    begun: datetime | None
    """When its first run began; None if no record says it."""


def _ran(folder: Path) -> _Ran:
    seeds, starts = set[int](), list[datetime]()
    with suppress(UserError):
        for path in find_runs(folder):
            with suppress(UserError):
                record = read(path)
                seeds.add(record.seed)
                starts += [attempt.started for attempt in record.attempts]
    return _Ran(len(seeds), min(starts, default=None))


def _entry(name: str, memory: StudyManifest, ran: _Ran, own: datetime | None) -> Entry:
    study, begun = memory.study, ran.begun
    paid = sum(n <= ran.seeds for n in study.design.looks) if study.design else 0
    return Entry(
        name=study.name,
        folder=name,
        question=study.question,
        pairs=len(study.pairs),
        seeds=ran.seeds if study.design else len(study.seeds),
        looks=memory.looks + paid,
        begun=begun.isoformat(timespec="seconds") if begun else None,
        before=begun < own if begun and own else None,
    )
