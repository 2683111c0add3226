"""Whether a training curve had settled at its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from sagan_bench.analysis.statistics import ALPHA
from sagan_bench.core.errors import UserError

SETTLED_CHANGE = 0.05
"""A curve that moves by no more, relative to its level, over its last fifth has settled."""


class Ending(StrEnum):
    """Whether a curve had settled at its end."""

    SETTLED = "settled"
    UNSETTLED = "unsettled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Settling:
    """How a curve ended: its relative change over the last fifth, and its standard error."""

    change: float | None
    standard_error: float | None
    state: Ending


def settled(steps: Sequence[float], values: Sequence[float]) -> Settling:
    """Return whether a curve had settled, by the least-squares slope over its last fifth of steps.

    The change is slope times width of that window, relative to the mean there. The curve had
    settled if the change's 95 % interval (t, points taken as independent) lies within 5 % either
    way, and had not if it lies beyond. Fewer than 3 points there, or a mean of 0, cannot tell.

    Raises:
        UserError: Steps do not rise, or are not as many as the values, or a value is not finite.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or not (np.diff(x) > 0).all() or not np.isfinite(y).all():
        raise UserError("A curve needs rising steps and one finite value for each; check both.")
    late = x >= x[-1] - 0.2 * np.ptp(x) if len(x) else x > 0
    x, y = x[late], y[late]
    if len(x) < 3 or y.mean() == 0:
        return Settling(None, None, Ending.UNKNOWN)
    fit = stats.linregress(x, y)
    scale = np.ptp(x) / abs(y.mean())
    error = 0.0 if math.isnan(fit.stderr) else float(fit.stderr * scale)  # NaN: a constant
    change = float(fit.slope * scale)
    margin = stats.t.isf(ALPHA / 2, len(x) - 2) * error
    if abs(change) + margin <= SETTLED_CHANGE:
        return Settling(change, error, Ending.SETTLED)
    beyond = abs(change) - margin > SETTLED_CHANGE
    return Settling(change, error, Ending.UNSETTLED if beyond else Ending.UNKNOWN)
