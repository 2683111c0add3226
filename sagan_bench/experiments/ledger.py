"""Which other studies below the same folder put questions to the same data, and when."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

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
    own = _begun(folder) if others else None
    entries = [_entry(name, other, _begun(path), own) for name, path, other in others]
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


def _begun(folder: Path) -> datetime | None:
    """Return when the first run of a study began; None if no record says it."""
    return min(_starts(folder), default=None)


def _starts(folder: Path) -> Iterator[datetime]:
    try:
        paths = find_runs(folder)
    except UserError:
        return
    for path in paths:
        try:
            yield from (attempt.started for attempt in read(path).attempts)
        except UserError:
            continue


def _entry(name: str, memory: StudyManifest, begun: datetime | None, own: datetime | None) -> Entry:
    study = memory.study
    return Entry(
        name=study.name,
        folder=name,
        question=study.question,
        pairs=len(study.pairs),
        seeds=len(study.seeds),
        looks=memory.looks,
        begun=begun.isoformat(timespec="seconds") if begun else None,
        before=begun < own if begun and own else None,
    )
