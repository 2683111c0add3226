"""The directory of one run: its lock, its files, its metrics, and its status as of now."""

import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import Timeout

from sagan_bench.config.diff import differences, listed
from sagan_bench.core import garbage, locks
from sagan_bench.core.errors import UserError, machine_error
from sagan_bench.core.files import atomic_write, json_bytes, obstacle, sweep, sync
from sagan_bench.core.stored import damaged, sealed
from sagan_bench.runs.log import LOG
from sagan_bench.runs.program import PROGRAM
from sagan_bench.runs.records import (
    CHECKPOINTS,
    CONFIG,
    RECORD,
    WEIGHTS,
    Record,
    Seal,
    Status,
    read,
    read_object,
)
from sagan_bench.runs.rows import DIAGNOSTICS, METRICS, append, content_of, lines_of

LOCK = ".lock"
_LOCK_GRACE_SEC = 0.3  # a probe by is_locked holds the lock for an instant; outwait it

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RunDirectory:
    """The directory of one run, held by one process at a time: a context manager.

    ``record.json, config.json, metrics.jsonl, checkpoints/, samples/, weights.pt``, and where there
    are attention blocks ``diagnostics.jsonl`` and ``diagnostics/``; ``log.txt``.

    Args:
        path: The directory; made if it does not exist.
        digest: Digest of the config's result fields; None, before the images are known, fits every
            run, and only looks.
        config: The resolved config, as JSON values.
        fresh: Move an existing directory to ``<name>.old-N`` first.

    Raises:
        UserError: On entering, if it cannot be made or written to, if another process holds it, if
            it holds a run of another digest, or if it holds files that no run left. The directory
            is then as it was.
    """

    def __init__(
        self, path: Path, *, digest: str | None, config: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.path = path
        self.record_file = path / RECORD
        self.config_file = path / CONFIG
        self.metrics_file = path / METRICS
        self.diagnostics_file = path / DIAGNOSTICS
        self.diagnostics = path / "diagnostics"
        self.checkpoints = path / CHECKPOINTS
        self.samples = path / "samples"
        self.weights = path / WEIGHTS
        self._digest = digest
        self._config: dict[str, Any] = json.loads(json_bytes(config))
        self._fresh = fresh
        self._seals: dict[tuple[str, int], Seal] = {}

    def look(self) -> None:
        """Raise `UserError` where entering would, and touch nothing."""
        self._refuse_place()
        if self.path.exists():
            if is_locked(self.path):
                raise _in_use(self.path)
            if not self._fresh:
                self._refuse_other_run()

    def __enter__(self) -> Self:
        self._refuse_place()
        if self._fresh and self.path.exists():
            move_aside(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_other_run()  # before the lock, which leaves a file
        self._lock = acquired(self.path)
        try:
            self._refuse_other_run()  # again: one may have begun meanwhile
            self._claim()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _claim(self) -> None:
        sweep(self.path)
        # Before the folders: files without it would be refused, had a kill come between.
        atomic_write(self.config_file, sealed({"digest": self._digest, "config": self._config}))
        theirs = PROGRAM in self._config  # another program has a folder of its own
        for folder in () if theirs else (self.checkpoints, self.samples):
            folder.mkdir(exist_ok=True)

    def _refuse_place(self) -> None:
        error = obstacle(self.path)
        if self._fresh and self.path.is_dir():  # which is to be renamed
            error = error or obstacle(self.path.absolute().parent)
        if error and error.errno == errno.ENOTDIR:
            raise UserError(f"{error.filename} is no folder; {self.path}; choose another --out")
        if error:
            raise machine_error(error)

    def _refuse_other_run(self) -> None:
        held = self._held()
        if held is None or self._digest in (None, held[0]):
            return
        raise UserError(
            f"another run is here: {_difference(held[1], self._config)}; {self.path}; choose "
            "another --name or --out, or add --no-resume, which moves the directory aside"
        )

    def _held(self) -> tuple[str, dict[str, Any]] | None:
        """Return digest and config of the run that is in the directory, null if it is empty."""
        if self.config_file.exists():
            stored = read_object(self.config_file)
            if stored.keys() != {"digest", "config"} or not isinstance(stored["config"], dict):
                raise damaged(self.config_file, "digest and config expected")
            return stored["digest"], stored["config"]
        if self.record_file.exists():
            record = read(self.path)
            return record.config_digest, record.config
        if any(not (name.startswith(".") or name == LOG) for name in os.listdir(self.path)):
            raise UserError(
                f"{self.path} holds files but neither config.json nor {RECORD}; choose another "
                "--out, or add --no-resume, which moves the directory aside"
            )
        return None

    def write(self, record: Record) -> None:
        """Store the record, in one step."""
        atomic_write(self.record_file, sealed(record.model_dump(mode="json")))

    def seals(self) -> dict[str, Seal]:
        """Return the seals of rows, grids and maps as they are, by their path in the directory."""
        rows = [file for file in self._rows_files if file.exists()]
        pictures = [
            *self.samples.glob("real.png"), *self.samples.glob("step-*.png"),
            *self.diagnostics.glob("step-*.npz"),
        ]  # fmt: skip
        return {
            **{file.name: Seal.of(file.read_bytes()) for file in rows},
            **{str(file.relative_to(self.path)): self._seal(file) for file in sorted(pictures)},
        }

    def _seal(self, picture: Path) -> Seal:
        """Return the seal of a picture, which is written as a whole: read once."""
        key = (str(picture), picture.stat().st_mtime_ns)
        if key not in self._seals:
            self._seals[key] = Seal.of(picture.read_bytes())
        return self._seals[key]

    @property
    def _rows_files(self) -> tuple[Path, Path]:
        return self.metrics_file, self.diagnostics_file

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row, which holds ``step``, to the metrics; NaN and infinities become null."""
        append(self.metrics_file, row)

    def log_diagnostics(self, row: Mapping[str, Any]) -> None:
        """Append a row to the diagnostics, likewise."""
        append(self.diagnostics_file, row)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the metrics; a torn last line is left out."""
        return [row for _, row in lines_of(self.metrics_file, content_of(self.metrics_file))]

    def sync_rows(self) -> None:
        """Put the rows so far on the disk: before the checkpoint that they belong to."""
        for file in self._rows_files:
            sync(file)

    def cut(self, step: int, seals: Mapping[str, Seal] | None = None) -> None:
        """Drop the rows after ``step`` and a torn last line, so that going on repeats no row.

        A file of rows that does not begin as it did is moved aside, which is said; one that is
        shorter has lost rows, and whoever knows the settings can say which.

        Args:
            step: of the checkpoint from which the run goes on.
            seals: of the rows that belong to it, where they are known.
        """
        for file in self._rows_files:
            content, seal = content_of(file), (seals or {}).get(file.name)
            if seal and len(content) >= seal.length and not seal.fits(content, whole=False):
                aside = file.with_suffix(".damaged")
                _log.warning("%s is not what was written; moved to %s", file, aside.name)
                os.replace(file, aside)
            elif file.exists():
                kept = [line for line, row in lines_of(file, content) if row["step"] <= step]
                atomic_write(file, b"".join(kept))


def _difference(here: Mapping[str, Any], requested: Mapping[str, Any]) -> str:
    """Return the leaves that differ, as ``training.lr_g: 0.0001 here, 0.0004 asked``.

    Those of the section ``run`` are not part of the digest: told only if nothing else differs.
    """
    differ = differences(here, requested)
    results = [pair for pair in differ if not pair.key.startswith("run.")]
    same = "the configs read the same, but a different version digested them"
    return listed(results or differ) or same


def acquired(path: Path) -> locks.Held:
    """Return the lock of a run directory.  Raises `UserError` if another process has it."""
    try:
        return locks.acquired(path / LOCK, _LOCK_GRACE_SEC)
    except Timeout:
        raise _in_use(path) from None


def _in_use(path: Path) -> UserError:
    return UserError(
        f"the run directory is in use by {holder(path)}; {path}; wait until that process "
        "ends, or choose another --name or --out"
    )


def move_aside(path: Path) -> None:
    """Rename a directory that nobody holds to ``<name>.old-N``, N the smallest free number."""
    lock = acquired(path)
    try:
        number = 1
        while (target := path.with_name(f"{path.name}.old-{number}")).exists():
            number += 1
        os.rename(path, target)
        locks.forget(target / LOCK)
    finally:
        lock.release()
    _log.warning("%s moved to %s", path, target.name)


# --- Seen from outside -------------------------------------------------------------------------


def is_locked(path: Path) -> bool:
    """Return whether a process, this one included, has the run directory open."""
    return locks.is_held(path / LOCK)


def holder(path: Path) -> str:
    """Return in words who has the run directory open."""
    return locks.described(path / LOCK)


def abandoned(path: Path) -> None:
    """Take notice that whoever had the run directory open on another machine is gone."""
    with suppress(OSError):  # then it is taken for dead a little later
        locks.forget(path / LOCK)


def read_now(directory: Path) -> Record:
    """Return the record of a run with the status as of now, and the reason if it was killed.

    Raises:
        UserError: See :func:`sagan_bench.runs.records.read`.
    """
    record = read(directory)
    if record.status != Status.RUNNING or is_locked(directory):
        return record
    # It may have ended well between the two looks; it writes its record before it lets go.
    record = read(directory)
    if record.status != Status.RUNNING:
        return record
    ended = {"status": Status.INTERRUPTED, "reason": record.reason or "the process was killed"}
    return record.model_copy(update=ended)


def read_all(paths: Iterable[Path]) -> list[tuple[Path, Record]]:
    """Return the runs that can be read, with their records as of now; how many cannot is logged.

    Raises:
        UserError: None of them can: why the first cannot.
    """
    return readable(paths, read_now)


@garbage.none_expected()
def readable(paths: Iterable[Path], read_run: Callable[[Path], T]) -> list[tuple[Path, T]]:
    """Return each path with what ``read_run`` returns; those that it refuses are left out.

    One damaged record never hides the others, and is never passed over untold: that is logged.

    Raises:
        UserError: It refuses all of them: why the first.
    """
    readings, refused = list[tuple[Path, T]](), list[UserError]()
    for path in paths:
        try:
            readings.append((path, read_run(path)))
        except UserError as error:
            refused.append(error)
    if refused and not readings:
        raise refused[0]
    if refused:
        count = "1 run is" if len(refused) == 1 else f"{len(refused):,} runs are"
        _log.warning("%s left out, because of: %s", count, refused[0])
    return readings
