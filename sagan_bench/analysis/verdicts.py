"""What is compared by which metric, and what a comparison says: figures and enums, no words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sagan_bench.core.errors import UserError

ALPHA = 0.05
"""Chance of any false claim in a family of comparisons."""


class Lost(StrEnum):
    """Why a run that is over has no value of the metric."""

    DIVERGED = "diverged"
    """The training did: a result, ranked worst."""
    FAILED = "failed"
    """The machine or the program did: no result, which can undo a claim and never makes one."""
    NO_FIGURE = "no figure"
    """It finished, and this was not measured, or is not finite: no result either."""


Runs = Mapping[int, float | Lost]
"""Training seed -> value of the metric, or why there is none."""
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
    BETTER_AS_MATTERS = "better by as much as matters"
    """The whole interval lies beyond the smallest difference that matters."""
    WORSE_AS_MATTERS = "worse by as much as matters"
    BETTER_BY_DIVERGENCE = "better by divergence"
    """The baseline diverges more: of ranks, diverged runs worst."""
    WORSE_BY_DIVERGENCE = "worse by divergence"
    DIFFERS = "differs, but not shown by as much as matters"
    SAME = "no meaningful difference"
    INCONCLUSIVE = "inconclusive"

    @property
    def is_claim(self) -> bool:
        """Whether it says that a difference is there."""
        return self not in (Verdict.SAME, Verdict.INCONCLUSIVE)

    @property
    def is_better(self) -> bool:
        """Whether the variant is called better."""
        return self.value.startswith("better")

    @property
    def is_worse(self) -> bool:
        """Whether the variant is called worse."""
        return self.value.startswith("worse")

    @property
    def is_by_divergence(self) -> bool:
        """Whether it rests on the runs that diverged."""
        return self in (Verdict.BETTER_BY_DIVERGENCE, Verdict.WORSE_BY_DIVERGENCE)


class Basis(StrEnum):
    """What a comparison rests on, and so how much may be said; `CONFIRMATORY` gives verdicts."""

    POINTS = "points"
    PROVISIONAL = "provisional"
    EXPLORATORY = "exploratory"
    CONFIRMATORY = "confirmatory"
    POST_HOC = "post hoc"
    SECONDARY = "secondary"
    TOO_SMALL = "too small"
    IDLE = "idle"
    FEW_SEARCHES = "few searches"


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
    """

    basis: Basis
    missing: int = 0
    looks: int = 0
    idle: Idle | None = None
    searches: int = 0


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
    divergence_rate: float | None  # of the runs that did not fail
    divergence_interval: Interval | None  # Wilson, 95 %
    n_diverged: int | None = None
    n_failed: int | None = None


@dataclass(frozen=True)
class Comparison(Generic[S]):
    """One variant against the baseline; null is what the runs at hand cannot give.

    Attributes:
        n: Attempted seeds of the variant, of which ``n_ok`` gave a value, ``n_diverged`` diverged
            and ``n_failed`` failed, and the others were not measured; likewise the baseline.
        effect: Mean of the variant minus that of the baseline, in units of the metric.
        standing: how much may be said: a `Standing`; in a report, that in words.
        interval: Welch interval of the effect; those of a family all hold at once with 95 %
            (Bonferroni). This one decides.
        interval_alone: Welch interval of the effect, 95 % for this comparison alone.
        p: Welch's t test, two-sided; ``p_bonferroni`` is corrected over the family, as the interval
            is: below 0.05 where that excludes 0.
        p_rank: Mann-Whitney, two-sided, lost runs ranked worst; only where one diverged or failed.
        p_divergence: p of a verdict by divergence: of the ranks, or, where all runs of a side
            diverged and none of the other, of these counts.
        hedges_g: Effect in pooled standard deviations, corrected for small samples.
        p_better: Chance that a run of the variant beats one of the baseline: the share of the
            ``pairs`` in which it does.  Ties count half, and a diverged run loses to any other.
        p_better_interval: 95 % interval of that chance for this comparison alone (Newcombe).
        verdict: Only where confirmatory.
        price: level of ``interval`` where it is that of a look; else null.
        seeds_needed: Where inconclusive: seeds per group with which, if the effect is the true
            difference, there is a verdict with power 0.8: a claim where it is larger than the
            smallest that matters, else *no meaningful difference*. Null if over 1,000, or no more
            than the smaller group has.
        seeds_range: the same for differences that are as likely: the tenth and the ninetieth
            percentile; null there is over 1,000.
        shown_per_flop: where the verdict prefers the side that computes more a step: whether as
            much is shown at equal FLOPs, or against a control that computes as much.
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
    p_bonferroni: float | None = None
    p_rank: float | None = None
    hedges_g: float | None = None
    p_better: float | None = None
    verdict: Verdict | None = None
    seeds_needed: int | None = None
    seeds_range: tuple[int, int | None] | None = None
    shown_per_flop: bool | None = None
    min_effect: float = 0.0
    pairs: int | None = None
    p_better_interval: Interval | None = None
    n_diverged: int | None = None
    n_failed: int | None = None
    n_baseline_diverged: int | None = None
    n_baseline_failed: int | None = None
    p_divergence: float | None = None
    price: float | None = None
