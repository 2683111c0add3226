"""What is compared by which metric, and what a comparison says: figures and enums, no words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sagan_bench.core.errors import UserError

Runs = Mapping[int, float | None]
"""Training seed -> value of the primary metric; None for a run that diverged or failed."""
Outcomes = Mapping[str, Runs]
"""Variant -> its runs."""
Pair = tuple[str, str]
"""A variant and its baseline."""
Interval = tuple[float, float]
Floats = NDArray[np.float64]
S = TypeVar("S")


class Verdict(StrEnum):
    """What a confirmatory comparison says."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no meaningful difference"
    INCONCLUSIVE = "inconclusive"

    @property
    def is_claim(self) -> bool:
        """Whether it says that a difference is there."""
        return self in (Verdict.BETTER, Verdict.WORSE)


class Basis(StrEnum):
    """What a comparison rests on, and so how much may be said; `CONFIRMATORY` gives verdicts."""

    POINTS = "points"
    PROVISIONAL = "provisional"
    EXPLORATORY = "exploratory"
    CONFIRMATORY = "confirmatory"
    TOO_SMALL = "too small"
    IDLE = "idle"
    FEW_SEARCHES = "few searches"
    UNEQUAL_SEARCHES = "unequal searches"


@dataclass(frozen=True)
class Idle:
    """Blocks of a variant that did nothing at the end of ``idle`` of its ``runs``."""

    variant: str
    is_attention: bool
    idle: int
    runs: int


@dataclass(frozen=True)
class Standing:
    """How much a comparison may say, with the counts that limit it.

    Attributes:
        basis: what it rests on.
        missing: runs of the plan that are still to come.
        looks: how often results were looked at before more runs were added.
        idle: the blocks that did nothing.
        searches: of an equal tuning, on the side that has fewer.
        trials: of the shortest and the longest search.
    """

    basis: Basis
    missing: int = 0
    looks: int = 0
    idle: Idle | None = None
    searches: int = 0
    trials: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Metric:
    """The primary metric, chosen before looking.

    Attributes:
        label: Its name as readers see it, such as ``FID[effnet-lite0]``.
        better: Which values are better.
        min_effect: Smallest difference that matters, 0 or more: in units of the metric, or, if
            ``relative``, as a share of the baseline's mean.
        blind_to: What it hardly sees; where no difference is shown, the sentence says so.

    Raises:
        UserError: A field is out of its range.
    """

    label: str
    better: Literal["lower", "higher"]
    min_effect: float
    blind_to: str = ""
    relative: bool = False

    def against(self, baseline_mean: float) -> "Metric":
        """Return the metric with its smallest difference that matters in units of the metric."""
        least = self.min_effect * (abs(baseline_mean) if self.relative else 1)
        return replace(self, min_effect=least, relative=False)

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise UserError(f"{self.label}: better is {self.better!r}; say 'lower' or 'higher'.")
        if not 0 <= self.min_effect < math.inf:
            raise UserError(
                f"{self.label}: the smallest effect that matters is {self.min_effect}; "
                "give a finite number, 0 or more, in units of the metric."
            )


@dataclass(frozen=True)
class Summary:
    """One variant's runs: figures of the finite values, null where there are too few."""

    variant: str
    n: int  # attempted seeds
    n_ok: int
    mean: float | None
    median: float | None
    sd: float | None  # of a sample: divisor n_ok - 1
    min: float | None
    max: float | None
    divergence_rate: float | None
    divergence_interval: Interval | None  # Wilson, 95 %


@dataclass(frozen=True)
class Comparison(Generic[S]):
    """One variant against the baseline; null is what the runs at hand cannot give.

    Attributes:
        n: Attempted seeds of the variant, of which ``n_ok`` gave a value; likewise the baseline.
        effect: Mean of the variant minus that of the baseline, in units of the metric.
        standing: how much may be said: a `Standing`; in a report, that in words.
        interval: Welch interval of the effect; those of a family all hold at once with 95 %
            (Bonferroni). This one decides.
        interval_alone: Welch interval of the effect, 95 % for this comparison alone.
        p: Welch's t test, two-sided; ``p_holm`` is corrected by Holm over the family.
        p_rank: Mann-Whitney, two-sided, diverged runs ranked worst; only where a run diverged.
        hedges_g: Effect in pooled standard deviations, corrected for small samples.
        p_better: Chance that a run of the variant beats one of the baseline, U / (n * m): ties
            count half, and a diverged run loses to any other.
        verdict: Only where confirmatory.
        seeds_needed: Where inconclusive: seeds per group with which, if the effect is the true
            difference, there is a verdict with power 0.8: a claim where it is larger than the
            smallest that matters, else *no meaningful difference*. Null if over 1,000, or no more
            than the smaller group has.
        min_effect: Smallest difference that matters, in units of the metric.
    """

    variant: str
    baseline: str
    n: int
    n_ok: int
    n_baseline: int
    n_baseline_ok: int
    effect: float | None
    standing: S
    interval: Interval | None = None
    interval_alone: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    p_rank: float | None = None
    hedges_g: float | None = None
    p_better: float | None = None
    verdict: Verdict | None = None
    seeds_needed: int | None = None
    min_effect: float = 0.0
