"""What a study can see, before its first run."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from sagan_bench.analysis.power import POWER
from sagan_bench.analysis.verdicts import Floats

_LIKELY = (np.arange(50) + 0.5) / 50
"""Equally probable places of an estimated variance."""


@dataclass(frozen=True)
class Sight:
    """What the look at n seeds a group sees with a chance of 0.8, in units of the metric.

    Attributes:
        n: seeds a group.
        price: level of the look.
        claimed: the smallest true difference that is then claimed.
        same: the smallest margin within which no true difference is then shown to be.
    """

    n: int
    price: float
    claimed: float
    same: float


def foreseen_at(n: int, level: float, spread: float, least: float, *, paired: bool) -> Sight:
    """Return what a look sees alone, of normal runs that spread alike on both sides.

    Args:
        n: seeds a group.
        level: of the interval.
        spread: standard deviation of a variant's runs.
        least: smallest difference that matters.
        paired: runs of a seed are compared; they are taken as independent, as that is unknown.
    """
    error, margin = float(np.sqrt(2 / n)), least / spread
    half = _half_widths(n, level, paired)

    def claims(effect: float) -> float:
        return float(stats.norm.sf((np.maximum(half, margin) - effect) / error).mean()) - POWER

    def shows(margin: float) -> float:
        inside = 2 * stats.norm.cdf((margin - half) / error) - 1
        return float(np.maximum(inside, 0).mean()) - POWER

    most = margin + half.max() + 4 * error
    claimed, same = (float(brentq(chance, 0, most)) for chance in (claims, shows))
    return Sight(n, level, spread * claimed, spread * same)


def _half_widths(n: int, price: float, paired: bool) -> Floats:
    """Return equally probable half widths of an interval, in standard deviations of the runs."""
    estimated = stats.chi2.ppf(_LIKELY, n - 1) / (n - 1)
    if paired:
        return np.asarray(stats.t.isf(price / 2, n - 1) * np.sqrt(2 * estimated / n))
    ours, theirs = estimated[:, None], estimated
    freedom = (n - 1) * (ours + theirs) ** 2 / (ours**2 + theirs**2)  # Welch and Satterthwaite
    return np.asarray(stats.t.isf(price / 2, freedom) * np.sqrt((ours + theirs) / n))
