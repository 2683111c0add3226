"""Everything that a page shows, as data: a page is a function of this and of the pictures.

Stored as ``data/report.json`` beside the page, so that the page can be made again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sagan_bench.analysis.verdicts import Basis
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import SEAL, UNFIT, first_trouble, json_value, seal, shortened
from sagan_bench.experiments.tuning import findings as tuning
from sagan_bench.report.beside import Beside
from sagan_bench.report.courses import Course
from sagan_bench.report.readings import YOUNG, Findings
from sagan_bench.runs.records import Status

SCHEMA_VERSION = 3
"""Version of the layout of ``report.json`` that this package writes."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda stored: {k: v for k, v in stored.items() if k != "tuning"} | {"kind": "study"},
    2: lambda stored: _of_older_rule(_with_bonferroni(stored)),
}
"""``UPGRADES[n]`` turns the JSON object of schema n into that of schema n + 1."""


PictureKind = Literal["real", "samples", "attention", "probe", "film"]
PictureName = Annotated[str, Field(pattern=r"^\w[\w.+-]*\.(png|webp)$", max_length=200)]
"""Of a file in the folder of the data, and nowhere else."""
VariantName = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=200)]
"""From which names of files are made."""


@dataclass(frozen=True, kw_only=True)
class TuningFindings(tuning.FindingsOf[str, Course]):
    """Everything that can be said of a tuning; figures raw, words beside them."""

    courses: tuple[Course, ...] = ()
    """Declared anew, so that it is read as what it is."""
    sentences: tuple[str, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunRow(_Part):
    """One run, finished or not."""

    id: str
    variant: str
    seed: int
    status: Status
    reason: str | None
    step: int
    steps: int
    metrics: dict[str, float | None] = Field(description="final, averaged weights, mean over seeds")
    fingerprint: str | None = Field(
        None, description="of the protocols of these metrics, with ; between those of the seeds"
    )
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
    """A picture in the folder of the data: lossless, but for a film's frames.

    A film is what a grid or a block's maps looked like on the way; each frame is a picture.
    """

    kind: PictureKind
    variant: str | None = Field(description="null for real images")
    seed: int | None
    block: str | None = Field(None, description="network.block whose maps are shown")
    step: int | None = Field(None, description="at which a run left it; null if not known")
    file: PictureName = Field(description="its name in the folder of the data")
    alt: str
    caption: str


class Placed(_Part):
    """What stands in place of attention, and at which sides in pixels."""

    kind: str
    generator: tuple[int, ...]
    discriminator: tuple[int, ...]


class Report(_Part):
    """What every page says, whatever it is about."""

    YOUNG: ClassVar[tuple[str, ...]] = ()
    """Fields of its findings that are left out while they are empty."""

    schema_version: Literal[3] = 3
    name: str
    made_with: str
    finished_at: str | None = Field(description="UTC time at which the last attempt ended")
    status: Literal["complete", "partial", "smoke"]
    warnings: tuple[str, ...]
    config: dict[str, Any] = Field(description="of the first run, for what all share")
    data: dict[str, Any]
    environments: tuple[dict[str, Any], ...] = Field(description="distinct ones, of all runs")
    repeat: str | None = Field(description="command that repeats it all; null if none is known")
    sections: dict[str, Any] = Field({}, description="section of a user -> its data")
    pictured: dict[PictureName, str] = Field(
        default_factory=dict, description="picture -> SHA-256 of its file"
    )

    @property
    def question(self) -> str:
        """What the page answers."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return it as JSON in a line, with its seal."""
        value = self.model_dump(mode="json")
        for part, names in ((value, ("sections", "to_come")), (value["findings"], self.YOUNG)):
            for name in names:
                if not part.get(name):
                    part.pop(name, None)
        return json.dumps({SEAL: seal(value), **value}, ensure_ascii=False) + "\n"


class Document(Report):
    """What the report of a study, or of runs that no study names, says."""

    YOUNG = YOUNG

    kind: Literal["study"] = "study"
    findings: Findings
    labels: dict[str, str] = Field(description="metric -> its name for readers")
    floor: dict[str, float | None] = Field(description="the metrics of real against real images")
    says: dict[str, str] = Field(description="variant -> what it is, in words")
    placed: dict[str, Placed] = Field(description="variant -> what it has where")
    runs: tuple[RunRow, ...]
    series: tuple[Series, ...]
    pictures: tuple[Picture, ...]
    paper: dict[str, Any] | None
    missing: int | None = Field(None, description="runs still to come; null if it was not stored")
    to_come: dict[str, int] = Field({}, description="variant -> its runs that are still to come")

    @property
    def called(self) -> str:
        """What a command calls it: the study, or the word for a folder where it is of none."""
        return self.name if self.findings.declared else "FOLDER"

    @property
    def question(self) -> str:
        """The study's own."""
        return self.findings.question

    @property
    def runs_over(self) -> int:
        """Finished or lost."""
        return len(self.findings.runs)


class LengthsDocument(Report):
    """What the page of runs of different length says: figures side by side, and no verdict."""

    kind: Literal["lengths"] = "lengths"
    findings: Beside
    runs: tuple[RunRow, ...] = Field(description="their figures stand in the findings")
    series: tuple[Series, ...]
    pictures: tuple[Picture, ...]

    @property
    def question(self) -> str:
        """What it shows."""
        return self.findings.question

    @property
    def runs_over(self) -> int:
        """Finished or lost."""
        return len(self.findings.runs)


class TuningDocument(Report):
    """What the report of a tuning says."""

    kind: Literal["tuning"] = "tuning"
    findings: TuningFindings
    confirm: bool = Field(description="whether the best were to be trained again on fresh seeds")
    winners: dict[VariantName, str] = Field(
        description="variant -> its winner, for `train --config`"
    )
    protocol: dict[str, Any] = Field(description="of the final scores; empty before any")
    runs_over: int = Field(description="of trials and on fresh seeds")
    pictures: tuple[Picture, ...] = ()

    @property
    def question(self) -> str:
        """Of one variant what it can reach; of several which is better at its best."""
        variants = self.findings.variants
        if len(variants) == 1:
            return f"Which values suit {variants[0]}, and what are they worth?"
        others = [name for name in variants if name != self.findings.baseline]
        than = f"better than {self.findings.baseline}"
        return f"Is {' or '.join(others)} {than} once each is tuned equally well?"


AnyDocument = Annotated[Document | LengthsDocument | TuningDocument, Field(discriminator="kind")]


_ANY: TypeAdapter[Document | LengthsDocument | TuningDocument] = TypeAdapter(AnyDocument)


def read(file: Path) -> AnyDocument:
    """Return a stored document, upgraded if it is older.

    Raises:
        UserError: it is not there or damaged, or a newer sagan-bench wrote it.
    """
    try:
        return _ANY.validate_python(_upgraded(json_value(file), file))
    except FileNotFoundError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except UNFIT as error:
        raise not_a_report(file, error) from error


def not_a_report(file: Path, error: Exception) -> UserError:
    """Return the error that says that a page cannot be made of a file."""
    return UserError(f"{file} is not a report ({first_trouble(error)}); render it again from runs")


OLDER_RULE = (
    "This report was made under an older rule, which judged steps alone and secondary readings "
    "too: render it again from its runs for what can be said today."
)


def _of_older_rule(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a report without verdicts on secondary readings, and with a warning of the others."""
    findings = stored["findings"]
    for reading in findings.get("secondary") or ():
        reading["sentences"] = []
        for comparison in reading["comparisons"]:
            comparison |= {"verdict": None, "seeds_needed": None}
            if comparison["standing"] == Basis.CONFIRMATORY:
                comparison["standing"] = Basis.SECONDARY.value
    return {**stored, "warnings": [OLDER_RULE, *stored["warnings"]]}


def _with_bonferroni(stored: Any) -> Any:
    """Return what a report holds with Bonferroni's p of each comparison for Holm's."""
    if isinstance(stored, list):
        return [_with_bonferroni(part) for part in stored]
    if not isinstance(stored, dict):
        return stored
    upgraded = {key: _with_bonferroni(value) for key, value in stored.items()}
    family = upgraded.get("comparisons") or ()
    for comparison in family:
        if comparison.pop("p_holm", None) is not None:
            comparison["p_bonferroni"] = min(1.0, comparison["p"] * len(family))
    return upgraded


def _upgraded(stored: Any, file: Path) -> Any:
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if not isinstance(version, int) or version < min(UPGRADES, default=SCHEMA_VERSION):
        raise ValueError(f"schema_version {shortened(version)}")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"a newer sagan-bench wrote this report (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); {file}; update sagan-bench"
        )
    for older in range(version, SCHEMA_VERSION):
        stored = {**UPGRADES[older](stored), "schema_version": older + 1}
    return stored
