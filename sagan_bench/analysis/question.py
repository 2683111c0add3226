"""What is asked of runs before they are looked at: the measure, and what is known of variants."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from sagan_bench.analysis.design import Cell, Design
from sagan_bench.analysis.verdicts import Pair
from sagan_bench.config.section import Section
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ATTENTION, METRICS
from sagan_bench.evaluation.metrics import shown
from sagan_bench.models.placed import Placed
from sagan_bench.runs.program import Better

Settings = dict[str, Any]
"""Dotted key of the configuration -> value."""


class Collapse(NamedTuple):
    """A finished run whose metric is beyond a bound counts as diverged."""

    metric: str
    is_above: bool
    bound: float

    def has(self, value: float) -> bool:
        """Return whether a run of that value has collapsed."""
        return value > self.bound if self.is_above else value < self.bound


class Measure(Section):
    """What decides on one kind of data, fixed before looking."""

    metric: str = Field(description="key of the primary metric, such as twin_rate or fid")
    min_effect: float | str = Field(
        description="smallest difference that matters: in units of the metric, or as in '5%' of "
        "the baseline's mean"
    )
    set: Settings = Field(default={}, description="settings that go with this kind of data")
    better: Better | None = Field(
        None, description="which values are, of a metric that another program gives"
    )
    lost: str | None = Field(
        None, description="what counts as diverged though it finished, such as 'fid > 150'"
    )
    paired: bool = Field(False, description="compare runs of the same seed")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.least  # noqa: B018  # refuses what is neither
        self.collapse  # noqa: B018  # likewise
        own = METRICS[self.metric].better if self.metric in METRICS else None
        if own is None and self.better is None:
            hint = "of a metric of your own, say with better = 'lower' or 'higher' which values are"
            known = closest(self.metric, list(shown()))
            raise ValueError(f"metric = '{self.metric}'; {known}; {hint}")
        if own and self.better not in (None, own):
            raise ValueError(f"better = '{self.better}': of {self.metric} {own} is better")
        return self

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is younger than measures is left out where it says nothing."""
        fields: dict[str, Any] = handler(self)
        young = ("better", "lost", "paired")
        return {key: value for key, value in fields.items() if key not in young or value}

    @property
    def least(self) -> tuple[float, bool]:
        """The smallest effect that matters, and whether it is a share of the baseline's mean."""
        if isinstance(self.min_effect, float | int):
            return float(self.min_effect), False
        share = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)%", self.min_effect)
        if not share:
            raise ValueError(f"min_effect = {self.min_effect!r}: expected a number, or '5%'")
        return float(share[1]) / 100, True

    @property
    def collapse(self) -> "Collapse | None":
        """What counts as diverged though it finished."""
        if self.lost is None:
            return None
        said = re.fullmatch(
            r"\s*([A-Za-z]\w*)\s*([<>])\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*", self.lost
        )
        try:
            return Collapse(said[1], said[2] == ">", float(said[3]))  # type: ignore[index]
        except (TypeError, ValueError):
            raise ValueError(
                f"lost = {self.lost!r}: expected a metric, < or >, and a number, as in 'fid > 150'"
            ) from None


class PaperRow(Section):
    """One column of a published table: a block at a place, and what was reported there."""

    block: str = Field(description="title of an attention kind, or none")
    share: float | None = Field(None, description="side of the feature map / side of the image")
    figures: dict[str, float]

    @model_validator(mode="after")
    def _known_block(self) -> Self:
        titles = ["none", *dict.fromkeys(kind.title for kind in ATTENTION.values())]
        if self.block not in titles:
            raise ValueError(f"block = {self.block!r}; {closest(self.block, titles)}")
        return self


class Paper(Section):
    """A published table to stand beside the study's own; never a truth to test against."""

    title: str
    source: str
    remark: str
    rows: tuple[PaperRow, ...]


class Facts(BaseModel):
    """What a variant's networks are, counted before anything is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: tuple[Placed, ...]
    parameters_g: int
    parameters_d: int
    flops_per_step: int


@dataclass(frozen=True)
class Entry:
    """Another study that put a question to the same data.

    Attributes:
        name: of the study.
        folder: where it is, from the folder that holds the study which is looked at.
        question: in its own words.
        pairs: how many it compares: its family.
        seeds: a variant.
        looks: how often it was extended when results could be seen.
        begun: UTC time at which its first run began; null if no record says it.
        before: whether that was before the first run of the study which is looked at, if known.
    """

    name: str
    folder: str
    question: str
    pairs: int
    seeds: int
    looks: int
    begun: str | None
    before: bool | None


@dataclass(frozen=True)
class Ledger:
    """The other studies of the same data by the same primary metric, below the same folder.

    Attributes:
        entries: in the order in which they began; those of which that is not known come last.
        unreadable: folders of studies of which nothing is known.
        of_command: they have the same command, of whose data nothing is known.
    """

    entries: tuple[Entry, ...]
    unreadable: tuple[str, ...] = ()
    of_command: bool = False


@dataclass(frozen=True)
class Question:
    """What is to be compared, and by what.

    Attributes:
        declared: it was fixed before any run, so that there are verdicts.
        where: the user says so, here, and no study shows it; empty where a study does.
    """

    name: str
    text: str
    measure: Measure
    pairs: tuple[Pair, ...]
    declared: bool
    where: str = ""
    comparable: bool = True
    looks: int = 0
    design: Design | None = None
    """Of a study that grows until it is conclusive."""
    order: tuple[int, ...] = ()
    """The seeds in the order in which such a study takes them."""
    planned: Collection[Cell] | None = None
    """What the plan has; None for runs that no plan names."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    paper: Paper | None = None
    ledger: Ledger | None = None
    """What else was put to the same data."""
