"""Everything that a page shows, as data: a page is a function of this and of the pictures.

Stored as ``data/report.json`` beside the page, so that the page can be made again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagan_bench.comparison import Findings
from sagan_bench.errors import UserError

SCHEMA_VERSION = 1
"""Version of the layout of ``report.json`` that this package writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""``UPGRADES[n]`` turns the JSON object of schema n into that of schema n + 1."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunRow(_Part):
    """One run, finished or not."""

    id: str
    variant: str
    seed: int
    status: str
    reason: str | None
    step: int
    steps: int
    metrics: dict[str, float | None] = Field(description="final, averaged weights, mean over seeds")
    train_sec: float | None
    score_sec: float | None
    images_per_sec: float | None
    peak_memory_gib: float | None
    attempts: int
    device: str
    threads: int | None
    digest: str
    command: str | None = Field(description="repeats the run alone; null if none is known")


class Series(_Part):
    """One curve of one run; a missing value is null."""

    name: str = Field(description="metric, loss_d, loss_g, or reading.network.block")
    variant: str
    seed: int
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


class Picture(_Part):
    """A lossless picture in the folder of the data."""

    kind: Literal["real", "samples", "attention"]
    variant: str | None = Field(description="null for real images")
    seed: int | None
    block: str | None = Field(None, description="network.block whose maps are shown")
    file: str = Field(description="its name in the folder of the data")
    alt: str
    caption: str


class Placed(_Part):
    """What stands in place of attention, and at which sides in pixels."""

    kind: str
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]


class Trial(_Part):
    """One trial of a search."""

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    value: float | None
    params: dict[str, float | int | str | bool | None]
    train_sec: float | None = None


class Confirmed(_Part):
    """A trial's settings run again at seeds that the search never saw."""

    number: int
    values: dict[int, float | None] = Field(description="training seed -> objective")


class Tuning(_Part):
    """A search for hyperparameters; its best value is optimistic, because it was chosen."""

    objective: str
    better: Literal["lower", "higher"]
    method: str = Field(description="sampler and pruner, in words")
    trials: tuple[Trial, ...]
    importance: dict[str, float] = Field(default={}, description="parameter -> share")
    importance_by: str | None = None
    confirmed: tuple[Confirmed, ...] = ()


class Document(_Part):
    """What a report says."""

    schema_version: Literal[1] = 1
    name: str
    made_with: str
    finished_at: str | None = Field(description="UTC time at which the last attempt ended")
    status: Literal["complete", "partial", "smoke"]
    findings: Findings
    labels: dict[str, str] = Field(description="metric -> its name for readers")
    floor: dict[str, float | None] = Field(description="the metrics of real against real images")
    warnings: tuple[str, ...]
    says: dict[str, str] = Field(description="variant -> what it is, in words")
    placed: dict[str, Placed] = Field(description="variant -> what it has where")
    runs: tuple[RunRow, ...]
    series: tuple[Series, ...]
    pictures: tuple[Picture, ...]
    paper: dict[str, Any] | None
    config: dict[str, Any] = Field(description="of the first run, for what all share")
    data: dict[str, Any]
    environments: tuple[dict[str, Any], ...] = Field(description="distinct ones, of all runs")
    repeat: str | None = Field(description="command that repeats it all; null if none is known")
    tuning: Tuning | None = None

    def to_json(self) -> str:
        """Return it as JSON."""
        return self.model_dump_json() + "\n"


def read(file: Path) -> Document:
    """Return a stored document, upgraded if it is older.

    Raises:
        UserError: it is not there or damaged, or a newer sagan-bench wrote it.
    """
    try:
        return Document.model_validate(_upgraded(json.loads(file.read_bytes()), file))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{file} is not a report ({first}); render it again from runs") from error


def _upgraded(stored: Any, file: Path) -> Any:
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if not isinstance(version, int) or version < min(UPGRADES, default=SCHEMA_VERSION):
        raise ValueError(f"schema_version {version!r}")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"a newer sagan-bench wrote this report (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); {file}; update sagan-bench"
        )
    for older in range(version, SCHEMA_VERSION):
        stored = {**UPGRADES[older](stored), "schema_version": older + 1}
    return stored
