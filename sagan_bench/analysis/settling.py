"""Whether a training curve had settled at its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from sagan_bench.analysis.verdicts import ALPHA, Floats
from sagan_bench.core.errors import UserError

SETTLED_CHANGE = 0.05
"""A curve that moves by no more of its level over its last fifth has settled."""


CORRELATED = 8
"""Points from which their correlation can be seen; fewer are taken as independent."""


class Ending(StrEnum):
    """Whether a curve had settled at its end."""

    SETTLED = "settled"
    UNSETTLED = "unsettled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Settling:
    """How a curve ended: its change over the last fifth and its standard error, in its units."""

    change: float | None
    standard_error: float | None
    state: Ending


def settled(
    steps: Sequence[float],
    values: Sequence[float],
    least: float | None = None,
    share: float = SETTLED_CHANGE,
) -> Settling:
    """Return whether a curve had settled, by the least-squares slope over its last fifth of steps.

    The change is slope times width of that window.  The curve had settled if the change's 95 %
    interval lies within ``least`` either way, and had not if it lies beyond.  Neighbouring points
    are correlated: the interval is as wide as that of so many independent ones as they are worth,
    by the autocorrelation of the residuals of `CORRELATED` points or more.  Fewer than 3
    points, or a mean of 0 where ``least`` is a share of it, cannot tell.

    Args:
        steps: that rise.
        values: of the curve.
        least: change that matters, in units of the curve; None: a share of the mean in the window.
        share: which.

    Raises:
        UserError: Steps do not rise, or are not as many as the values, or a value is not finite.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or not (np.diff(x) > 0).all() or not np.isfinite(y).all():
        raise UserError("A curve needs rising steps and one finite value for each; check both.")
    late = x >= x[-1] - 0.2 * np.ptp(x) if len(x) else x > 0
    x, y = x[late], y[late]
    if len(x) < 3 or (least is None and y.mean() == 0):
        return Settling(None, None, Ending.UNKNOWN)
    fit, width = stats.linregress(x, y), np.ptp(x)
    repeated = _repeated(y - fit.intercept - fit.slope * x)
    error = 0.0 if math.isnan(fit.stderr) else float(fit.stderr * width * math.sqrt(repeated))
    change = float(fit.slope * width)
    margin = stats.t.isf(ALPHA / 2, max(1, len(x) / repeated - 2)) * error
    matters = share * abs(y.mean()) if least is None else least
    if abs(change) + margin <= matters:
        return Settling(change, error, Ending.SETTLED)
    beyond = abs(change) - margin > matters
    return Settling(change, error, Ending.UNSETTLED if beyond else Ending.UNKNOWN)


def _repeated(residuals: Floats) -> float:
    """Return how many correlated points are worth one: (1 + r) / (1 - r), 1 at least.

    r is the autocorrelation at lag 1, less its bias of about -(2 + 4 r) / n beside a fitted line.
    """
    total, n = float(residuals @ residuals), len(residuals)
    if not total or n < CORRELATED:
        return 1.0
    r = float(residuals[1:] @ residuals[:-1]) / total
    r = min(0.99, max(0.0, (n * r + 2) / (n - 4)))
    return (1 + r) / (1 - r)
