"""Families of comparisons as arrays: effects, their intervals and tests, and the rule."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sagan_bench.analysis.verdicts import ALPHA, Floats, Metric, Verdict

_ROUNDING = 1e-9  # a spread below this share of the values is rounding, not spread


class Intervals(NamedTuple):
    """Each variant of a family against the baseline: arrays (..., m), NaN where undefined.

    ``low`` and ``high`` bound the interval at the level that decides, ``low_alone`` and
    ``high_alone`` that at `ALPHA`; ``p_corrected`` is below `ALPHA` where the former excludes 0.
    """

    effect: Any
    low: Any
    high: Any
    low_alone: Any
    high_alone: Any
    p: Any
    p_corrected: Any


def welch(variants: Floats, baselines: Floats, level: float | None = None) -> Intervals:
    """Test the family (..., m, n) against (..., m or 1, n) by Welch; NaN is a missing value.

    Args:
        variants: m of them, n seeds each.
        baselines: one each, or one for all.
        level: of each comparison; by default `ALPHA` shared equally among them.
    """
    with warnings.catch_warnings():  # of groups too small, empty or constant: NaN is the answer
        warnings.simplefilter("ignore", RuntimeWarning)
        effect = np.nanmean(variants, axis=-1) - np.nanmean(baselines, axis=-1)
        test = stats.ttest_ind(variants, baselines, axis=-1, equal_var=False, nan_policy="omit")
        constant = _constant(variants) & _constant(baselines)
    return _intervals(
        effect, test, constant, ALPHA / variants.shape[-2] if level is None else level
    )


def by_pairs(variants: Floats, baselines: Floats, level: float | None = None) -> Intervals:
    """Test likewise the differences at each seed by Student's t, whatever their correlation."""
    differences = variants - baselines
    sizes = np.fmax(np.abs(variants), np.abs(baselines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        effect = np.nanmean(differences, axis=-1)
        test = stats.ttest_1samp(differences, 0, axis=-1, nan_policy="omit")
        constant = _constant(differences, np.nanmax(sizes, axis=-1))
    return _intervals(
        effect, test, constant, ALPHA / variants.shape[-2] if level is None else level
    )


def _intervals(effect: Any, test: Any, constant: Any, level: float) -> Intervals:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        together, alone = test.confidence_interval(1 - level), test.confidence_interval(1 - ALPHA)
    undefined = np.isnan(test.pvalue) | constant
    corrected = np.minimum(1, test.pvalue * (ALPHA / level))
    bounds = (together.low, together.high, alone.low, alone.high, test.pvalue, corrected)
    return Intervals(effect, *(np.where(undefined, np.nan, value) for value in bounds))


def _constant(groups: Floats, size: Any = None) -> Any:
    spread = np.nanmax(groups, axis=-1) - np.nanmin(groups, axis=-1)
    return spread <= _ROUNDING * (np.nanmax(np.abs(groups), axis=-1) if size is None else size)


def verdicts(tested: Intervals, metric: Metric) -> NDArray[np.str_]:
    """Apply the rule to arrays (..., m), before lost runs count; NaN is inconclusive."""
    least = metric.min_effect
    differs = (tested.low > 0) | (tested.high < 0)
    claimed = differs & (np.abs(tested.effect) > least)
    beyond = claimed & (least > 0) & ((tested.low > least) | (tested.high < -least))
    improved = (tested.effect > 0) == (metric.better == "higher")
    rules = {
        Verdict.BETTER_AS_MATTERS: beyond & improved,
        Verdict.WORSE_AS_MATTERS: beyond,
        Verdict.BETTER: claimed & improved,
        Verdict.WORSE: claimed,
        Verdict.SAME: (-least <= tested.low) & (tested.high <= least),
        Verdict.DIFFERS: differs,
    }
    names = [verdict.value for verdict in rules]
    return np.select(list(rules.values()), names, Verdict.INCONCLUSIVE.value)
