"""Where the rule's 5 % do not hold, and whether runs look so (docs/statistics.md, limits).

The rule compares means by t intervals.  Skew together with unequal spread, or a collapse in one
group only, makes false claims in 5 to 36 % of studies instead of 5: the few runs at hand mostly do
not contain the tail that the mean is made of.  For the same reason runs that look irregular are a
weak sign: of five seeds a group most false claims show none.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from sagan_bench.analysis.verdicts import Floats, Lost, Pair, Runs

SPREAD_RATIO = 2.0
"""Of the standard deviations of two groups, from which on they are unequal."""
SKEWNESS = 0.8
"""Of a group, unbiased and in absolute value, from which on it is skewed."""
FAR = 10.0
"""Standard deviations of the other runs beyond which one run is far from their median."""
LEAST = 4
"""Runs of a group from which its shape is looked at."""


class Irregularity(StrEnum):
    """In which way runs look unlike what the rule was measured on."""

    SKEWED_AND_UNEQUAL = "skewed and unequal"
    FAR_OUTLIER = "far outlier"


@dataclass(frozen=True)
class Doubt:
    """An irregularity of the runs behind a comparison.

    Attributes:
        variant: the group that looks so: the one with the larger spread, or with the outlier.
        against: the other group of the comparison.
        kind: in which way.
        seed: of the outlier.
    """

    variant: str
    against: str
    kind: Irregularity
    seed: int | None = None


@np.errstate(all="ignore")  # of values near the ends of what a number holds
def doubts(outcomes: Mapping[str, Runs], pair: Pair) -> tuple[Doubt, ...]:
    """Return what looks irregular in the runs of a pair; groups of fewer than `LEAST` never do."""
    groups = {name: _known(outcomes[name]) for name in pair}
    if any(len(runs) < LEAST for runs in groups.values()):
        return ()
    values = {name: np.array(list(runs.values())) for name, runs in groups.items()}
    irregular = []
    spread = {name: float(x.std(ddof=1)) for name, x in values.items()}
    wide, narrow = sorted(pair, key=lambda name: -spread[name])
    skewed = any(abs(_skewness(x)) > SKEWNESS for x in values.values())
    if skewed and spread[wide] > SPREAD_RATIO * spread[narrow]:
        irregular.append(Doubt(wide, narrow, Irregularity.SKEWED_AND_UNEQUAL))
    for name, other in (pair, pair[::-1]):
        if (seed := _outlier(groups[name])) is not None:
            irregular.append(Doubt(name, other, Irregularity.FAR_OUTLIER, seed))
    return tuple(irregular)


def _known(runs: Runs) -> dict[int, float]:
    return {seed: value for seed, value in runs.items() if not isinstance(value, Lost)}


def _skewness(values: Floats) -> float:
    """Return the unbiased sample skewness G1; 0 of values without a spread."""
    with warnings.catch_warnings():  # of a spread that is rounding
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.skew(values, bias=False)) if np.ptp(values) > 0 else 0.0


def _outlier(runs: Mapping[int, float]) -> int | None:
    """Return the seed of the run furthest from the median, if it is far from the others."""
    middle = float(np.median(list(runs.values())))
    seed = max(runs, key=lambda seed: abs(runs[seed] - middle))
    spread = float(np.std([value for other, value in runs.items() if other != seed], ddof=1))
    return seed if spread > 0 and abs(runs[seed] - middle) > FAR * spread else None
