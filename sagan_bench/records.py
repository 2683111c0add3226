"""What a run left behind: the record, the metrics, atomic writes, the lock and the status."""

import fcntl
import json
import logging
import math
import os
import platform
import re
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, Self

from filelock import FileLock, Timeout
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import to_json

from sagan_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of the layout of ``record.json`` that this package writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""``UPGRADES[n]`` turns the JSON object of schema n into that of schema n + 1."""

RECORD = "record.json"
_LOCK = ".lock"
_HOLDER = ".holder.json"
_LOCK_GRACE_SEC = 0.3  # a probe by is_locked holds the lock for an instant; outwait it
_MOVED_ASIDE = re.compile(r"\.old-\d+$")

_log = logging.getLogger(__name__)

Status = Literal["running", "finished", "diverged", "interrupted", "failed"]
UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]


# --- Files -------------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the name ``path`` when the block ends, and never before.

    A reader sees the old content or the whole new one, through a kill or a power cut too. An
    exception in the block leaves ``path`` as it was.
    """
    # Not tempfile: it makes files that only their owner may read, whatever the umask says.
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temp.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
        _sync_folder(path.parent)
    finally:
        temp.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written; only for the holder of the lock."""
    for temp in folder.rglob(".*.tmp"):
        temp.unlink(missing_ok=True)


# --- The record --------------------------------------------------------------------------------


def _not_finite(values: Any) -> dict[str, Any]:
    """Return the NaN and infinities among the values of a dict (of anything else: none)."""
    pairs = values.items() if isinstance(values, dict) else ()
    return {key: v for key, v in pairs if isinstance(v, Real) and not math.isfinite(v)}


def _reasons(lost: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    return tuple(f"{prefix}{key} was {value}" for key, value in lost.items())


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Stored):
    """Every metric of one sample set; a metric that is not finite becomes null and a warning."""

    step: int = Field(description="Generator updates done when the samples were drawn")
    weights: Literal["ema", "raw"] = Field(description="Which weights of G drew the samples")
    sampling_seed: int = Field(description="Seed of z and labels of the samples")
    n_fake: int = Field(description="Number of generated images")
    fingerprint: str = Field(description="Fingerprint of the protocol: compare only equal ones")
    protocol: dict[str, JsonValue] = Field(description="The protocol behind the fingerprint")
    metrics: dict[str, float | None] = Field(description="Metric key to value; null if missing")
    floor: dict[str, float | None] = Field(
        default_factory=dict, description="The same metrics of real against real images"
    )
    warnings: tuple[str, ...] = Field(default=(), description="Why values are missing or doubtful")
    final: bool = Field(description="False for a score made during training at a smaller n")

    @model_validator(mode="before")
    @classmethod
    def _no_nan(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for key, prefix in (("metrics", ""), ("floor", "floor of ")):
            if lost := _not_finite(given.get(key)):
                warnings = (*given.get("warnings", ()), *_reasons(lost, prefix))
                nulled = {**given[key], **dict.fromkeys(lost)}
                given = {**given, key: nulled, "warnings": warnings}
        return given


class Cost(_Stored):
    """What the run took; a cost that is not finite becomes null and a note."""

    train_sec: float | None = Field(None, description="Wall time of training, all attempts")
    data_sec: float | None = Field(None, description="Wall time of preparing data")
    score_sec: float | None = Field(None, description="Wall time of sampling and scoring")
    images_per_sec: float | None = Field(None, description="Median of real images/s in training")
    peak_memory_gib: float | None = Field(None, description="Peak memory of the training device")
    parameters_g: int | None = Field(None, description="Trainable parameters of G")
    parameters_d: int | None = Field(None, description="Trainable parameters of D")
    flops_per_step: int | None = Field(None, description="Floating-point operations of one step")
    notes: tuple[str, ...] = Field(default=(), description="Why costs are missing or doubtful")

    @model_validator(mode="before")
    @classmethod
    def _no_nan(cls, given: Any) -> Any:
        if lost := _not_finite(given):
            notes = (*given.get("notes", ()), *_reasons(lost))
            given = {**given, **dict.fromkeys(lost), "notes": notes}
        return given


class Environment(_Stored):
    """Where a run ran; nothing here is read from environment variables."""

    python: str = Field(description="Version of Python")
    sagan_bench: str | None = Field(None, description="Version of this package, if installed")
    torch: str | None = Field(None, description="Version of torch")
    torchvision: str | None = Field(None, description="Version of torchvision")
    torch_fidelity: str | None = Field(None, description="Version of torch-fidelity")
    numpy: str | None = Field(None, description="Version of numpy")
    platform: str = Field(description="Operating system and architecture")
    cpu: str | None = Field(None, description="Model name of the CPU")
    device: str = Field(description="Device of training, as torch names it")
    device_name: str | None = Field(None, description="Model name of the accelerator")
    threads: int | None = Field(None, description="Threads of torch; they change bits in fp32")
    cuda: str | None = Field(None, description="Version of CUDA that torch was built with")
    git_commit: str | None = Field(None, description="Commit of the checkout that ran, if one did")
    git_dirty: bool | None = Field(None, description="Whether the package differed from git_commit")
    command: str = Field(description="Command line, quoted for a shell")


class DataSummary(_Stored):
    """Which images the run saw."""

    fingerprint: str = Field(description="Fingerprint of the content, never of a path")
    manifest: dict[str, JsonValue] = Field(description="Source, counts, size, splits")


class Attempt(_Stored):
    """One process's part of a run."""

    started: UtcTime = Field(description="UTC time at which the process began")
    ended: UtcTime | None = Field(None, description="UTC time at which it ended; null if killed")
    from_step: int = Field(description="Steps done when it began")
    to_step: int | None = Field(None, description="Steps done when it ended; null if killed")
    outcome: Status | None = Field(None, description="How it ended; null if killed")
    threads: int | None = Field(None, description="Threads of torch in this attempt")


class Record(_Stored):
    """All that a run left behind, as stored in ``record.json``; missing is null."""

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this layout")
    run: str = Field(description="Name of the run's directory")
    name: str = Field(description="Name that the user gave the run")
    variant: str = Field(description="Name of the variant")
    seed: int = Field(description="Seed of training")
    status: Status = Field(description="'running' with a free lock means interrupted: status_now")
    reason: str | None = Field(None, description="Why it did not finish")
    step: int = Field(description="Generator updates done")
    steps: int = Field(description="Generator updates asked for")
    config: dict[str, JsonValue] = Field(description="The resolved config, no 'auto' left")
    config_digest: str = Field(description="Digest of the config fields that change results")
    data: DataSummary | None = Field(None, description="Data used; null if it was never ready")
    scores: tuple[Score, ...] = Field(default=(), description="One entry per scored sample set")
    cost: Cost = Field(default=Cost(), description="Time, memory and size")
    environment: Environment = Field(description="Software and hardware of the last attempt")
    attempts: tuple[Attempt, ...] = Field(default=(), description="One entry per process")

    def to_json(self) -> bytes:
        """Return the JSON text; raises ValueError for a NaN or infinity in a free-form field."""
        return _json(self.model_dump(mode="json"))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read(path: Path) -> Record:
    """Return the record of a run directory (or of a record file), upgraded if it is older.

    Raises:
        UserError: If there is none, it is damaged, or a newer sagan-bench wrote it.
    """
    file = path / RECORD if path.is_dir() else path
    try:
        return Record.model_validate(_upgraded(_json_object(file), file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(file, f"{where}: {first['msg']}") from error


def _json_object(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"no {file.name}; in {file.parent}; name a run directory that was started"
        ) from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise _damaged(file, str(error)) from error
    if not isinstance(stored, dict):
        raise _damaged(file, "not a JSON object")
    return stored


def _damaged(file: Path, detail: str) -> UserError:
    return UserError(
        f"damaged {file.name} ({detail}); {file}; restore it from a copy, or run again with "
        "--no-resume, which moves the directory aside"
    )


def _upgraded(stored: dict[str, Any], file: Path) -> dict[str, Any]:
    version = stored.get("schema_version")
    if not isinstance(version, int) or version < min(UPGRADES, default=SCHEMA_VERSION):
        raise _damaged(file, f"schema_version {version!r}")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"a newer sagan-bench wrote this record (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); {file}; update sagan-bench"
        )
    for older in range(version, SCHEMA_VERSION):
        stored = {**UPGRADES[older](stored), "schema_version": older + 1}
    return stored


def status_now(directory: Path) -> Status:
    """Return the status of a run as of now: ``running`` only while a process holds its lock.

    Raises:
        UserError: See :func:`read`.
    """
    return _current(directory).status


def _current(directory: Path) -> Record:
    record = read(directory)
    if record.status != "running" or is_locked(directory):
        return record
    # It may have ended well between the two looks; it writes its record before it lets go.
    record = read(directory)
    if record.status != "running":
        return record
    ended = {"status": "interrupted", "reason": record.reason or "the process was killed"}
    return record.model_copy(update=ended)


def find_runs(root: Path) -> list[Path]:
    """Return the run directories at or below ``root``, sorted; those moved aside are left out."""
    runs = []
    for folder, below, files in os.walk(root):
        if RECORD in files:
            runs.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if name[0] != "." and not _MOVED_ASIDE.search(name)]
    return sorted(runs)


# --- Records as a table ------------------------------------------------------------------------

_OF_RUN = {
    "run": "string",
    "name": "string",
    "variant": "string",
    "seed": "Int64",
    "status": "string",
    "reason": "string",
    "step": "Int64",
    "steps": "Int64",
    "config_digest": "string",
}
_OF_SCORE = {
    "fingerprint": "string",
    "weights": "string",
    "sampling_seed": "Int64",
    "final": "boolean",
    "n_fake": "Int64",
}
_OF_COST = {
    "train_sec": "Float64",
    "data_sec": "Float64",
    "score_sec": "Float64",
    "images_per_sec": "Float64",
    "peak_memory_gib": "Float64",
    "parameters_g": "Int64",
    "parameters_d": "Int64",
    "flops_per_step": "Int64",
}
_OF_ENVIRONMENT = {
    "device": "string",
    "device_name": "string",
    "cpu": "string",
    "threads": "Int64",
    "torch": "string",
    "git_commit": "string",
    "git_dirty": "boolean",
}
_COLUMNS = {
    "run": "string",
    "path": "string",
    **_OF_RUN,
    "data_fingerprint": "string",
    "attempts": "Int64",
    **_OF_SCORE,
    "score_step": "Int64",
    "warnings": "string",
    **_OF_COST,
    **_OF_ENVIRONMENT,
}


def frame(paths: Iterable[Path]) -> "pd.DataFrame":
    """Return a tidy table of runs: one row per run and score, one for a run without scores.

    Columns: the fields of run, score, cost and environment under their own names (``step`` is the
    run's, ``score_step`` the score's); each metric under its key; ``floor.<metric>``,
    ``protocol.<key>`` and ``config.<section>.<key>``, lists there as comma-joined text. Status is
    as of now. Missing is ``pandas.NA``.

    Raises:
        UserError: See :func:`read`.
    """
    import pandas as pd  # not at the top: --help need not wait for it

    rows = [row for path in paths for row in _rows_of(path)]
    found = {name for row in rows for name in row} - set(_COLUMNS)
    others = sorted(found, key=lambda name: ("." in name, name))  # metrics first

    def column(name: str) -> Any:
        measured = "." not in name or name.startswith("floor.")
        values: Any = [row.get(name) for row in rows]
        dtype: Any = _COLUMNS.get(name, "Float64" if measured else None)
        return pd.array(values, dtype=dtype)

    return pd.DataFrame({name: column(name) for name in (*_COLUMNS, *others)})


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    record = _current(path)
    of_run = {
        **record.model_dump(include=set(_OF_RUN)),
        "path": str(path),
        "data_fingerprint": record.data.fingerprint if record.data else None,
        "attempts": len(record.attempts),
        **record.cost.model_dump(include=set(_OF_COST)),
        **record.environment.model_dump(include=set(_OF_ENVIRONMENT)),
        **_factors("config", record.config),
    }
    for score in record.scores:
        yield of_run | _of_score(score)
    if not record.scores:
        yield of_run


def _of_score(score: Score) -> dict[str, Any]:
    return {
        **score.model_dump(include=set(_OF_SCORE)),
        "score_step": score.step,
        "warnings": "; ".join(score.warnings),
        **score.metrics,
        **_factors("floor", score.floor),
        **_factors("protocol", score.protocol),
    }


def _factors(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    leaves = _leaves(tree, f"{prefix}.")
    return {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in leaves.items()}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        leaves |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves


# --- Environment -------------------------------------------------------------------------------


def environment(
    device: str,
    *,
    device_name: str | None = None,
    threads: int | None = None,
    cuda: str | None = None,
) -> Environment:
    """Return where this process runs; what only torch knows comes from the caller."""
    commit, dirty = _git_state(Path(__file__).resolve().parent)
    command = shlex.join(sys.argv).encode(errors="backslashreplace").decode()
    return Environment(
        python=platform.python_version(),
        sagan_bench=_version("sagan-bench"),
        torch=_version("torch"),
        torchvision=_version("torchvision"),
        torch_fidelity=_version("torch-fidelity"),
        numpy=_version("numpy"),
        platform=platform.platform(),
        cpu=_cpu_name(),
        device=device,
        device_name=device_name,
        threads=threads,
        cuda=cuda,
        git_commit=commit,
        git_dirty=dirty,
        command=command,
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    if sys.platform == "darwin":
        name = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
    else:
        info = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
        name = found[1] if found else None
    return name or platform.processor() or platform.machine() or None


def _git_state(package: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirtiness of the checkout whose root holds ``package``, else nulls.

    A package installed inside somebody else's repository (a virtual environment there) is not
    part of that repository.
    """
    git = ["git", "--no-optional-locks", "-C", str(package)]
    top = _output([*git, "rev-parse", "--show-toplevel"])
    if not top or Path(top).resolve() != package.parent.resolve():
        return None, None
    commit = _output([*git, "rev-parse", "--verify", "HEAD"])
    changes = _output([*git, "status", "--porcelain", "--", "."])
    if not commit or changes is None:
        return None, None
    return commit, bool(changes)


def _output(command: list[str]) -> str | None:
    """Return what a command prints, null if it fails or is not there."""
    # Within a git hook GIT_DIR and the like point at another repository.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, env=outside, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# --- The run directory -------------------------------------------------------------------------


def is_locked(path: Path) -> bool:
    """Return whether a process, this one included, has the run directory open."""
    try:
        handle = os.open(path / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two probes at a time do not take each other for a run.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class RunDirectory:
    """The directory of one run, held by one process at a time: a context manager.

    ``record.json, config.json, metrics.jsonl, checkpoints/, samples/, weights.pt``

    Args:
        path: The directory; made if it does not exist.
        digest: Digest of the config's result fields.
        config: The resolved config, as JSON values.
        fresh: Move an existing directory to ``<name>.old-N`` first.

    Raises:
        UserError: On entering, if another process holds it, if it holds a run of another digest,
            or if it holds files that no run left. The directory is then as it was.
    """

    def __init__(
        self, path: Path, *, digest: str, config: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.path = path
        self.record_file = path / RECORD
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.weights = path / "weights.pt"
        self._digest = digest
        self._config: dict[str, Any] = json.loads(_json(config))
        self._fresh = fresh

    def __enter__(self) -> Self:
        if self._fresh and self.path.exists():
            _move_aside(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_other_run()  # before the lock, which leaves a file
        self._lock = _acquired(self.path)
        try:
            self._refuse_other_run()  # again: one may have begun meanwhile
            self._claim()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        (self.path / _HOLDER).unlink(missing_ok=True)
        self._lock.release()

    def _claim(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        atomic_write(self.path / _HOLDER, _json(holder))
        _sweep(self.path)
        # Before the folders: files without it would be refused, had a kill come between.
        atomic_write(self.config_file, _json({"digest": self._digest, "config": self._config}))
        for folder in (self.checkpoints, self.samples):
            folder.mkdir(exist_ok=True)

    def _refuse_other_run(self) -> None:
        held = self._held()
        if held is None or held[0] == self._digest:
            return
        raise UserError(
            f"another run is here: {_difference(held[1], self._config)}; {self.path}; choose "
            "another --name or --out, or add --no-resume, which moves the directory aside"
        )

    def _held(self) -> tuple[str, dict[str, Any]] | None:
        """Return digest and config of the run that is in the directory, null if it is empty."""
        if self.config_file.exists():
            stored = _json_object(self.config_file)
            if stored.keys() != {"digest", "config"}:
                raise _damaged(self.config_file, "digest and config expected")
            return stored["digest"], stored["config"]
        if self.record_file.exists():
            record = read(self.path)
            return record.config_digest, record.config
        if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise UserError(
                f"files but neither config.json nor {RECORD}; {self.path}; choose another --out, "
                "or add --no-resume, which moves the directory aside"
            )
        return None

    def write(self, record: Record) -> None:
        """Store the record, in one step."""
        atomic_write(self.record_file, record.to_json())

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row, which holds ``step``, to the metrics; NaN and infinities become null."""
        with self.metrics_file.open("ab") as file:
            file.write(to_json(row, inf_nan_mode="null") + b"\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the metrics; a torn last line is left out."""
        return [row for _, row in _metric_lines(self.metrics_file)]

    def cut(self, step: int) -> None:
        """Drop the rows after ``step`` and a torn last line, so that going on repeats no row."""
        kept = [line for line, row in _metric_lines(self.metrics_file) if row["step"] <= step]
        atomic_write(self.metrics_file, b"".join(kept))


def _metric_lines(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return  # torn by a kill, or being written just now
        try:
            yield line, json.loads(line)
        except ValueError:
            _log.warning("%s: line %d is damaged and left out", file, number)


def _difference(here: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return the leaves that differ, as ``training.lr_g: 0.0001 here, 0.0004 asked``."""
    old, new = ({k: json.dumps(v) for k, v in _leaves(c).items()} for c in (here, asked))
    pairs = [
        f"{key}: {old.get(key, 'absent')} here, {new.get(key, 'absent')} asked"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    return ", ".join(pairs) or "the configs read the same, but a different version digested them"


def _acquired(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=_LOCK_GRACE_SEC)
    except Timeout:
        raise UserError(
            f"the run directory is in use by {_holder(path)}; {path}; wait until that process "
            "ends, or choose another --name or --out"
        ) from None
    return lock


def _holder(path: Path) -> str:
    try:
        holder = json.loads((path / _HOLDER).read_bytes())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _move_aside(path: Path) -> None:
    """Rename a directory that nobody holds to ``<name>.old-N``, N the smallest free number."""
    lock = _acquired(path)
    try:
        number = 1
        while (target := path.with_name(f"{path.name}.old-{number}")).exists():
            number += 1
        os.rename(path, target)
    finally:
        lock.release()
    _log.info("%s moved to %s", path, target)
