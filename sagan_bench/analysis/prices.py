"""What a look at a study costs: the level at which verdicts are given after n seeds.

A study that grows until it is conclusive looks at its runs after 5, 8, 12, ... seeds a group.  Each
look has a price, fixed when the study begins, so that all intervals of all looks and pairs hold at
once with 95 %: repeated confidence intervals (Jennison and Turnbull, JRSS B 1989, 51, 305) on an
error-spending schedule (Lan and DeMets, Biometrika 1983, 70, 659), which has no last look.
"""

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from sagan_bench.analysis.design import looks
from sagan_bench.analysis.verdicts import ALPHA, Floats

KEPT = 0.1
"""Share of the error that is kept for looks beyond the horizon, without end."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(101)


def spent(n: int, horizon: int, alpha: float) -> float:
    """Return the error that is spent by n seeds: ``alpha`` in the end, which never comes.

    Each seed up to the horizon spends as much; `KEPT` of it is left for those beyond.
    """
    return alpha * ((1 - KEPT) * min(n, horizon) / horizon + KEPT * max(0.0, 1 - horizon / n))


@cache
def prices(pairs: int, horizon: int, most: int) -> dict[int, float]:
    """Return the two-sided level of each look at one pair: seeds -> level.

    Args:
        pairs: of the study, which share `ALPHA` equally.
        horizon: seeds a group that it was begun for.
        most: the last look.
    """
    times = looks(horizon, most)
    spending = np.diff([0.0, *(spent(n, horizon, ALPHA / pairs) for n in times)])
    bounds = boundaries(times, spending.tolist())
    return {
        n: float(2 * stats.norm.sf(bound / math.sqrt(n)))
        for n, bound in zip(times, bounds, strict=True)
    }


def boundaries(times: list[int], spending: list[float]) -> list[float]:
    """Return c_k with P(|S_k| >= c_k for the first time at look k) = spending[k].

    S is a sum of independent standard normals after ``times`` of them (Armitage, McPherson and
    Rowe, JRSS A 1969, 132, 235, by Gauss and Legendre's rule).
    """
    bounds = [float(stats.norm.isf(spending[0] / 2)) * math.sqrt(times[0])]
    points, mass = _inside(bounds[0])
    mass = mass * stats.norm.pdf(points, scale=math.sqrt(times[0]))
    for (before, now), share in zip(pairwise(times), spending[1:], strict=True):
        error = math.sqrt(now - before)

        def excess(
            bound: float, points: Any = points, mass: Any = mass, error: float = error,
            share: float = share,
        ) -> float:  # fmt: skip
            out = stats.norm.sf(bound, points, error) + stats.norm.cdf(-bound, points, error)
            return float(mass @ out) - share

        bound = brentq(excess, 0, 12 * math.sqrt(now), xtol=1e-10)
        at, weight = _inside(bound)
        mass = weight * (stats.norm.pdf(at[:, None], points, error) @ mass)
        points = at
        bounds.append(bound)
    return bounds


def _inside(bound: float) -> tuple[Floats, Floats]:
    """Return points and weights of an integral from -bound to bound."""
    return bound * _NODES, bound * _WEIGHTS
