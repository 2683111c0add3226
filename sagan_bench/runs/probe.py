"""What a run's finished weights do when only a block is changed: the schema of ``probe.json``.

It lies beside the record, which it does not touch, and is made by `sagan_bench.session.probing`.
Figures are null where they are missing, and a reason says why.
"""

import hashlib
import shlex
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sagan_bench.config.schema import Weights
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.stored import fitting, json_object, sealed, shortened

PROBE, PICTURE = "probe.json", "probe.png"
SCHEMA_VERSION: Literal[1] = 1
"""Version of the layout that this package writes; one of another version is made anew."""

NONE = "none"
"""Name of the intervention that leaves a block's branch out."""

Network = Literal["generator", "discriminator"]
Shares = dict[str, float]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Outcome(_Stored):
    """What one way of running the networks gave, beside the untouched ones at the same noise."""

    metrics: dict[str, float | None] = Field(
        default_factory=dict, description="Metric key to value; null if undefined"
    )
    changed: float | None = Field(
        None, description="Share of pixels that are off by more than 1/255 in a channel"
    )
    breaks: Shares = Field(
        default_factory=dict,
        description="Condition of a rule to the share of images that met it untouched, and do not",
    )
    mends: Shares = Field(
        default_factory=dict, description="Likewise, that did not meet it untouched, and do"
    )
    ranking: float | None = Field(
        None,
        description="Of D: share of the pairs of a real and a generated image in which the real "
        "one has the larger logit; equal ones count half",
    )
    reason: str | None = Field(None, description="Why figures are missing")


class Arm(_Stored):
    """An intervention on some blocks of a network, and its sham."""

    network: Network = Field(description="Whose blocks")
    blocks: tuple[str, ...] = Field(description="Their names; several are changed at once")
    intervention: str = Field(description="What is done to them")
    keeps_rms: bool = Field(description="Whether each image's branch keeps its root mean square")
    primary: bool = Field(
        False, description="Whether it is the one of which words are said: at most one of a run"
    )
    applied: Outcome | None = Field(
        None, description="Under it, BatchNorm's statistics recomputed under it"
    )
    sham: Outcome | None = Field(
        None, description="Under a change as large that has nothing to do with maps, likewise"
    )
    frozen: Outcome | None = Field(
        None, description="`applied` with the statistics of the untouched network"
    )
    sham_frozen: Outcome | None = Field(None, description="`sham`, likewise")
    reason: str | None = Field(None, description="Why there is no outcome")


class MassReading(_Stored):
    """What one of two parts that must agree takes in from the other, weighted by |beta v|."""

    mass: float = Field(description="Share, mean over both directions and images")
    chance: float = Field(description="The same parts and values by the map of another image")
    images: int = Field(description="Images that have both parts")


class ProbedBlock(_Stored):
    """A block, and by what it was changed."""

    network: Network = Field(description="Where it is")
    name: str = Field(description="Its name, which ends in the side of its feature map")
    gamma: float | None = Field(description="In y = x + gamma * o; null without one")
    by: Literal["maps", "branch"] | None = Field(
        description="Changed by its maps, or by leaving its branch out alone; null is not at all"
    )
    reason: str | None = Field(None, description="Why not by its maps")
    norms_after: int = Field(0, description="BatchNorm layers that come after it")
    mass: MassReading | None = Field(
        None, description="Null without maps, or where no rule asks two parts to agree"
    )


class ProbePicture(_Stored):
    """``probe.png``: what G draws of the same noise, a row each way of running it."""

    blocks: tuple[str, ...] = Field(description="Blocks of G that are changed in it, all at once")
    rows: tuple[str, ...] = Field(
        description="From above: untouched; interventions, the branch's RMS kept but where it is "
        "left out; sham is that of the primary one"
    )
    sha256: str = Field(description="Of the file")


class Probe(_Stored):
    """All that was measured on a run's finished weights."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="Version of this layout")
    run: str = Field(description="Name of the run's directory")
    config_digest: str = Field(description="The run's")
    step: int = Field(description="Generator updates behind the weights")
    weights: Weights = Field(description="Which of G's")
    weights_sha256: str = Field(description="Of the file that holds them")
    images: int = Field(description="Generated images, the same noise for all")
    asked: tuple[str, ...] = Field(
        description="Metrics that were asked for beyond those without an extractor"
    )
    fingerprint: str = Field(description="Of the protocol: compare only equal ones")
    protocol: dict[str, JsonValue] = Field(description="The protocol behind the fingerprint")
    device: str = Field(description="Of all figures, as torch names it")
    torch: str = Field(description="Version of torch")
    seconds: float = Field(description="Wall time")
    blocks: tuple[ProbedBlock, ...] = Field(description="Of G, then of D")
    untouched: Outcome = Field(description="Of the networks as they are")
    discriminator: str | None = Field(None, description="Why D was not probed; null if it was")
    arms: tuple[Arm, ...] = Field(description="Of G, then of D")
    picture: ProbePicture | None = Field(
        None, description="Null where no block of G was changed by its maps"
    )

    @property
    def primary(self) -> Arm | None:
        """The arm of which words are said; None where no block of G was changed by its maps."""
        return next((arm for arm in self.arms if arm.primary), None)


def read(run: Path) -> Probe | None:
    """Return what is stored of a run, in its directory; None if there is nothing.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    file = run / PROBE
    try:
        stored = json_object(file)
        if (version := stored.get("schema_version")) != SCHEMA_VERSION:
            raise UserError(f"{PROBE}: schema_version {shortened(version)} is not {SCHEMA_VERSION}")
        return fitting(lambda: Probe.model_validate(stored), file)
    except FileNotFoundError:
        return None
    except UserError as error:
        what = str(error).partition(";")[0]
        raise UserError(
            f"{what}; {file}; delete it, or make it anew: probe {shlex.quote(str(run))} --again"
        ) from error


def picture_of(run: Path, probe: Probe) -> bytes | None:
    """Return the picture that belongs to what is stored of a run; None if there is none."""
    file = run / PICTURE
    content = file.read_bytes() if probe.picture and file.is_file() else b""
    fits = probe.picture and hashlib.sha256(content).hexdigest() == probe.picture.sha256
    return content if fits else None


def write(run: Path, probe: Probe) -> None:
    """Store it in one step; the directory is held by this process."""
    atomic_write(run / PROBE, sealed(probe.model_dump(mode="json")))
