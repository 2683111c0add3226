"""The runs of a variant as counts and ranks, in which what diverged is worst."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from sagan_bench.analysis.verdicts import ALPHA, Interval, Lost, Metric, Runs


class Group:
    """The runs of one variant.

    Attributes:
        values: of those with a figure.
        n: all.
        diverged: how many.
        failed: how many.
        lost: those without a figure, for whatever reason.
        ranked: those that ranks are of: with a figure, or diverged.
    """

    def __init__(self, runs: Runs) -> None:
        self._by_seed, self._runs = runs, list(runs.values())
        self.values = np.array([x for x in self._runs if not isinstance(x, Lost)], np.float64)
        self.n = len(self._runs)
        self.diverged = self._runs.count(Lost.DIVERGED)
        self.failed = self._runs.count(Lost.FAILED)
        self.lost = self.n - len(self.values)
        self.ranked = len(self.values) + self.diverged

    def _ranks(self, metric: Metric, worst: Sequence[Lost]) -> list[float]:
        """Return values of which larger is better; of lost runs those of ``worst`` alone."""
        sign = 1 if metric.better == "higher" else -1
        kept = (run for run in self._runs if not isinstance(run, Lost) or run in worst)
        return [-math.inf if isinstance(run, Lost) else sign * run for run in kept]

    def p_better(self, other: "Group", metric: Metric, worst: Sequence[Lost]) -> float:
        """Return the chance that a run beats one of the other group."""
        x, y = self._ranks(metric, worst), other._ranks(metric, worst)
        return float(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))

    def p_all_or_none(self, other: "Group", paired: bool) -> float:
        """Return the exact p, two-sided, where all of one group diverged and none of another.

        Barnard's is twice the largest chance of that at any common rate, which is at n / (n + m).
        Ranks of so many ties say less: 0.0075 of five against five, where this is 0.002.  Of runs
        of the same seeds it is McNemar's, which a correlation does not change: 0.063 of five.
        """
        n, m = self.n, other.n
        if {(self.diverged, other.diverged)} & {(n, 0), (0, m)}:
            rate = n / (n + m)
            return float(0.5 ** (min(n, m) - 1)) if paired else 2 * rate**n * (1 - rate) ** m
        return 1.0

    def p_rank(self, other: "Group", metric: Metric, paired: bool) -> float:
        """Return the two-sided p of ranks, every lost run worst: Mann-Whitney's, or Wilcoxon's."""
        if paired:
            return self._p_signed_rank(other, metric)
        return float(stats.mannwhitneyu(*(g._ranks(metric, [*Lost]) for g in (self, other))).pvalue)

    def _p_signed_rank(self, other: "Group", metric: Metric) -> float:
        """Return that of the differences at each seed, where a single lost run is the largest."""
        seeds = [seed for seed in self._by_seed if seed in other._by_seed]
        x, y = (
            Group({seed: group._by_seed[seed] for seed in seeds})._ranks(metric, [*Lost])
            for group in (self, other)
        )
        finite = [abs(value) for value in (*x, *y) if math.isfinite(value)]
        beyond = 4 * max(finite, default=1.0) + 1
        differences = np.subtract(*(np.clip(side, -beyond, None) for side in (x, y)))
        return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def newcombe(p_better: float, n: int, m: int) -> Interval:
    """Return the 95 % interval of the chance that a run of ``n`` beats one of ``m``.

    It is the score interval with Hanley and McNeil's variance (Newcombe, Statistics in Medicine
    2006, 25, 559, method 5), which is wide where all pairs agree.
    """
    z, others = stats.norm.isf(ALPHA / 2), (n + m) / 2 - 1

    def beyond(chance: float) -> float:
        both = (1 - chance) / (2 - chance) + chance / (1 + chance)
        variance = chance * (1 - chance) * (1 + others * both) / (n * m)
        return float((p_better - chance) ** 2 - z**2 * variance)

    beside = 1e-9  # where all pairs agree, the estimate itself is a root too
    low = brentq(beyond, 0, p_better - beside) if p_better > 0 else 0.0
    high = brentq(beyond, p_better + beside, 1) if p_better < 1 else 1.0
    return float(low), float(high)
