"""What drawing the images does to a score; every command that prints one imports this, and fast."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np


def standard_error(values: Sequence[float], share_of: int | None = None) -> float | None:
    """Return that of a run's score, for the images drawn; None where it cannot be known.

    That of a single share, or of shares that are all equal, is Agresti and Coull's (The American
    Statistician 1998, 52, 119): none of n is not surely none.

    Args:
        values: by sampling seed.
        share_of: images of which a value is a share.
    """
    seen = math.sqrt(float(np.var(values, ddof=1)) / len(values)) if len(values) > 1 else None
    if seen or not share_of:
        return seen
    n = share_of * len(values)
    share = min(1.0, max(0.0, (fmean(values) * n + 2) / (n + 4)))
    return math.sqrt(share * (1 - share) / (n + 4))
