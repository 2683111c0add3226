"""What a study can see, before its first run."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from sagan_bench.analysis.power import POWER
from sagan_bench.analysis.sequential import Design

_LIKELY = (np.arange(200) + 0.5) / 200
"""Equally probable places of what is estimated."""


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


def foreseen(spread: float, least: float, design: Design) -> list[Sight]:
    """Return what each look sees alone, of normal runs that spread alike on both sides.

    Args:
        spread: standard deviation of a variant's runs.
        least: smallest difference that matters.
        design: of the study; pairs of seeds are taken as independent, as correlations are unknown.
    """
    return [_sight(n, spread, least, design) for n in design.looks]


def _sight(n: int, spread: float, least: float, design: Design) -> Sight:
    price, freedom = design.price(n), (n - 1) * (1 if design.paired else 2)
    critical, error = float(stats.t.isf(price / 2, freedom)), float(np.sqrt(2 / n))

    def too_rare(effect: float) -> float:
        excludes_0 = stats.nct.sf(critical, freedom, effect / error)
        beyond = stats.norm.cdf((effect - least / spread) / error)
        return float(min(excludes_0, beyond)) - POWER

    def too_wide(margin: float) -> float:
        room = margin / error - critical * estimated
        return float(np.where(room > 0, 2 * stats.norm.cdf(room) - 1, 0.0).mean()) - POWER

    most = least / spread + 4 * (critical + 4) * error
    estimated = np.sqrt(stats.chi2.ppf(_LIKELY, freedom) / freedom)
    claimed, same = (float(brentq(chance, 0, most)) for chance in (too_rare, too_wide))
    return Sight(n, price, spread * claimed, spread * same)
