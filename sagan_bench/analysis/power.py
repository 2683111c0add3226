"""How many seeds a new study would need for a verdict, and how little that is known."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sagan_bench.analysis.verdicts import Floats, Metric

POWER = 0.8
MOST_SEEDS = 1_000
LIKELY = np.linspace(0.05, 0.95, 19)
"""Equally probable places of the true difference around its estimate; of the seeds that each asks
for, the second and the last but one are the tenth and the ninetieth percentile."""


def seeds_needed(
    x: Floats, y: Floats, metric: Metric, alpha: float
) -> tuple[int, tuple[int, int | None]] | None:
    """Return the seeds a group that decide with power 0.8 if the difference is the true one.

    They decide by a claim where it is larger than the smallest that matters, else by *no
    meaningful difference*.

    Args:
        x: values of the variant, two at least and not all equal.
        y: those of the baseline.
        metric: with its smallest difference that matters in its units.
        alpha: of this comparison.

    Returns:
        The seeds, and their tenth and ninetieth percentile over where the true difference is
        likely to be (Welch's t around the estimate), None for over 1,000.  None if they are over
        1,000 themselves, or no more than there are.
    """
    variances = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    sd = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    if not 0 < sd < math.inf:  # of values near the ends of what a number holds
        return None
    error, shares = math.sqrt(variances.sum()), variances / variances.sum()
    freedom = 1 / (shares**2 / [len(x) - 1, len(y) - 1]).sum()  # Welch and Satterthwaite
    likely = x.mean() - y.mean() + error * stats.t.ppf(LIKELY, freedom)
    effects = np.abs([x.mean() - y.mean(), *likely]) / sd
    about, *others = _least(effects, metric.min_effect / sd, alpha).tolist()
    if not min(len(x), len(y)) < about <= MOST_SEEDS:
        return None
    fewest, most = sorted(others)[1], sorted(others)[-2]
    return about, (fewest, most if most <= MOST_SEEDS else None)


def _least(effects: Floats, least: float, alpha: float) -> NDArray[np.int64]:
    """Return for each effect, in standard deviations, the seeds from which on there is power."""
    low, high = np.full(len(effects), 2), np.full(len(effects), MOST_SEEDS + 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = _power(effects, least, middle, alpha) >= POWER
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        low = np.minimum(low, high)
    return high


def _power(effects: Floats, least: float, n: NDArray[np.int64], alpha: float) -> Floats:
    """Return the chance of a verdict with ``n`` seeds a group; all arrays (k,)."""
    critical, error = stats.t.isf(alpha / 2, 2 * n - 2), np.sqrt(2 / n)
    excludes_0 = np.nan_to_num(stats.nct.sf(critical, 2 * n - 2, effects / error), nan=1.0)
    beyond = stats.norm.cdf((effects - least) / error)
    room = least - critical * error  # for the estimate, either way
    within = stats.norm.cdf((room - effects) / error) - stats.norm.cdf((-room - effects) / error)
    return np.where(effects > least, np.minimum(excludes_0, beyond), within)
