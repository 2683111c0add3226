"""What a run left behind: the record, its schema and its reading."""

import hashlib
import math
import os
from collections.abc import Callable
from datetime import UTC
from enum import StrEnum
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from sagan_bench.config.schema import Weights
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import json_bytes
from sagan_bench.core.stored import SEAL, damaged, fitting, json_object, shortened

SCHEMA_VERSION = 1
"""Version of the layout of ``record.json`` that this package writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""``UPGRADES[n]`` turns the JSON object of schema n into that of schema n + 1."""

RECORD, CONFIG = "record.json", "config.json"
WEIGHTS, CHECKPOINTS = "weights.pt", "checkpoints"


class Status(StrEnum):
    """How far a run has come, as it is stored and told."""

    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def is_result(self) -> bool:
        """Whether the run says something of what it was to compute."""
        return self in (Status.FINISHED, Status.DIVERGED)

    @property
    def is_lost(self) -> bool:
        """Whether it was attempted to the end and has no figure."""
        return self in (Status.DIVERGED, Status.FAILED)

    @property
    def is_over(self) -> bool:
        """Whether the same command again has nothing left to do."""
        return self is Status.FINISHED or self.is_lost


UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]


def _finite(given: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a dict with null for NaN and infinities, and what those were; or what is no dict."""
    pairs = given.items() if isinstance(given, dict) else ()
    lost = {key: v for key, v in pairs if isinstance(v, float | Real) and not math.isfinite(v)}
    if not lost:
        return given, ()
    return {**given, **dict.fromkeys(lost)}, tuple(f"{key} was {v}" for key, v in lost.items())


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Stored):
    """Every metric of one sample set; a metric that is not finite becomes null and a warning."""

    step: int = Field(description="Generator updates done when the samples were drawn")
    weights: Weights = Field(description="Which weights of G drew the samples")
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
            finite, lost = _finite(given.get(key))
            if lost:
                warnings = (*given.get("warnings", ()), *(f"{prefix}{text}" for text in lost))
                given = {**given, key: finite, "warnings": warnings}
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
        finite, lost = _finite(given)
        return {**finite, "notes": (*given.get("notes", ()), *lost)} if lost else given


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


class BlockReading(_Stored):
    """What a block did when it was last looked at; what is not finite, or has no maps, is null."""

    network: Literal["generator", "discriminator"] = Field(description="Where the block is")
    name: str = Field(description="Name of the block, which ends in the side of its feature map")
    step: int = Field(description="Generator updates done")
    gamma: float | None = Field(description="gamma in y = x + gamma * o")
    ratio: float | None = Field(description="||gamma * o|| / ||x||, mean over images")
    entropy: float | None = Field(None, description="Of a query's row of beta, in nats, mean")
    entropy_max: float | None = Field(None, description="Of a uniform row, in nats")
    distance_px: float | None = Field(None, description="From query to key under beta, mean")
    largest_logit: float | None = Field(None, description="Before the softmax, of all images")
    mass: float | None = Field(
        None,
        description="Share of what one of two parts that must agree takes in from the other, "
        "weighted by |beta v|; null where no rule asks two parts to agree",
    )
    chance: float | None = Field(None, description="Likewise, by the map of another image")

    @model_validator(mode="before")
    @classmethod
    def _no_nan(cls, given: Any) -> Any:
        return _finite(given)[0]


class Seal(_Stored):
    """What the beginning of a file was when the record was written."""

    length: int = Field(ge=0, description="Length of that beginning, in bytes")
    sha256: str = Field(description="SHA-256 of that beginning")

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return the seal of what a file holds."""
        return cls(length=len(content), sha256=hashlib.sha256(content).hexdigest())

    def fits(self, content: bytes, *, whole: bool) -> bool:
        """Return whether content begins as it did; if ``whole``, whether that is all of it."""
        begin = content[: self.length]
        return Seal.of(begin) == self and not (whole and len(content) > self.length)


class Attempt(_Stored):
    """One process's part of a run."""

    started: UtcTime = Field(description="UTC time at which the process began")
    ended: UtcTime | None = Field(None, description="UTC time at which it ended; null if killed")
    from_step: int = Field(description="Steps done when it began")
    to_step: int | None = Field(None, description="Steps done when it ended; null if killed")
    outcome: Status | None = Field(None, description="How it ended; null if killed")
    threads: int | None = Field(None, description="Threads of torch in this attempt")
    processes: int | None = Field(None, description="Processes that trained; null is unknown")
    host: str | None = Field(None, description="Name of the machine; null is unknown")
    engine: str | None = Field(None, description="Engine that made it; null is a run by itself")
    job: str | None = Field(None, description="What the engine's cluster calls its job")

    @property
    def place(self) -> str:
        """Where it was made, as ``on n3 by slurm 12_3``."""
        engine = f" by {self.engine}" if self.engine else ""
        return f"on {self.host}{engine}{f' {self.job}' if self.job else ''}"


class Record(_Stored):
    """All that a run left behind, as stored in ``record.json``; missing is null."""

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this layout")
    run: str = Field(description="Name of the run's directory")
    name: str = Field(description="Name that the user gave the run")
    variant: str = Field(description="Name of the variant")
    seed: int = Field(description="Seed of training")
    status: Status = Field(description="'running' with a free lock means interrupted: read_now")
    reason: str | None = Field(None, description="Why it did not finish")
    step: int = Field(description="Generator updates done")
    steps: int = Field(description="Generator updates asked for")
    config: dict[str, JsonValue] = Field(description="The resolved config, no 'auto' left")
    config_digest: str = Field(description="Digest of the config fields that change results")
    data: DataSummary | None = Field(None, description="Data used; null if it was never ready")
    scores: tuple[Score, ...] = Field(default=(), description="One entry per scored sample set")
    blocks: tuple[BlockReading, ...] = Field(default=(), description="Of attention, at the end")
    cost: Cost = Field(default=Cost(), description="Time, memory and size")
    environment: Environment = Field(description="Software and hardware of the last attempt")
    attempts: tuple[Attempt, ...] = Field(default=(), description="One entry per process")
    files: dict[str, Seal] = Field(
        default_factory=dict, description="Of rows, grids and maps beside it, by their path"
    )

    @property
    def step_sec(self) -> float | None:
        """Seconds of training over generator updates; None if that is not known."""
        return self.cost.train_sec / self.step if self.cost.train_sec and self.step else None

    @property
    def is_unscored(self) -> bool:
        """Whether it finished without a score of its end, as it was asked to."""
        finals = (score for score in self.scores if score.final and score.step == self.step)
        return self.status is Status.FINISHED and not any(finals)

    def to_json(self) -> bytes:
        """Return the JSON text; raises ValueError for a NaN or infinity in a free-form field."""
        return json_bytes(self.model_dump(mode="json"))


def read(path: Path) -> Record:
    """Return the record of a run directory (or of a record file), upgraded if it is older.

    Raises:
        UserError: If there is none, it is damaged, or a newer sagan-bench wrote it.
    """
    file = path / RECORD if os.path.isdir(path) else path  # of no file: False
    # The schema refuses what is nested too deeply, and 2,000 records are read at a time.
    stored = _upgraded(read_object(file, of_any_depth=True), file)
    record = fitting(lambda: Record.model_validate(stored), file)
    _refuse_another(record, file)
    return record


def _refuse_another(record: Record, file: Path) -> None:
    """Raise `UserError` if a sound configuration beside a record is that of another run."""
    beside = file.with_name(CONFIG)
    try:
        content = beside.read_bytes()
        if record.config_digest.encode() in content or SEAL.encode() not in content:
            return
        json_object(beside)
    except (OSError, UserError):  # said by whoever needs it
        return
    raise damaged(file, f"{CONFIG} beside it is of another run")


def read_object(file: Path, *, of_any_depth: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file of a run directory.

    Raises:
        UserError: If the file is not there, or not a JSON object.
    """
    try:
        return json_object(file, of_any_depth=of_any_depth)
    except FileNotFoundError:
        raise UserError(
            f"no {file.name}; in {file.parent}; name a run directory that was started"
        ) from None


def _upgraded(stored: dict[str, Any], file: Path) -> dict[str, Any]:
    version = stored.get("schema_version")
    if not isinstance(version, int) or version < min(UPGRADES, default=SCHEMA_VERSION):
        raise damaged(file, f"schema_version {shortened(version)}")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"a newer sagan-bench wrote this record (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); {file}; update sagan-bench"
        )
    for older in range(version, SCHEMA_VERSION):
        stored = {**UPGRADES[older](stored), "schema_version": older + 1}
    return stored
