"""Studies drawn at random: shapes of runs, and what looks at them say.

The slow tests and ``benchmarks/looks.py`` take their figures from here.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.intervals import Intervals, by_pairs, verdicts, welch
from sagan_bench.analysis.sequential import HOPELESS, chance_at_the_horizon
from sagan_bench.analysis.verdicts import Floats, Metric, Verdict

T = TypeVar("T")
Size = tuple[int, int, int]
"""Families, groups (the baseline first), seeds."""
Draw = Callable[[np.random.Generator, Size], Floats]
CHUNK = 2_000
"""Families drawn at once: 14 MB of 8 pairs with 96 seeds."""
HORIZON, FAR = 20, 96
ANYTHING = Metric("x", "lower", 0.0)
"""The hardest: every difference matters."""
HALF_SD, WHOLE_SD = Metric("x", "lower", 0.5), Metric("x", "lower", 1.0)
OPEN = [Verdict.INCONCLUSIVE.value, Verdict.DIFFERS.value]
"""What does not stop a pair."""
AS_MATTERS = Verdict.BETTER_AS_MATTERS, Verdict.WORSE_AS_MATTERS
CLAIMS = Verdict.BETTER, Verdict.WORSE, *AS_MATTERS


def normal(rng: np.random.Generator, size: Size, mean: float = 0) -> Floats:
    return mean + rng.standard_normal(size)


def student(rng: np.random.Generator, size: Size) -> Floats:
    return rng.standard_t(3, size)


def lognormal(rng: np.random.Generator, size: Size, sigma: float = 0.8) -> Floats:
    """Mean 0, standard deviation 1."""
    mean = np.exp(sigma**2 / 2)
    return (rng.lognormal(0, sigma, size) - mean) / (mean * np.sqrt(np.expm1(sigma**2)))


def beta(rng: np.random.Generator, size: Size, mean: float, sd: float) -> Floats:
    total = mean * (1 - mean) / sd**2 - 1
    return rng.beta(mean * total, (1 - mean) * total, size)


def collapsing(rng: np.random.Generator, size: Size, share: float = 0.2, to: float = 200) -> Floats:
    """FID 25 with standard deviation 1, of a share of the runs ``to`` instead."""
    return normal(rng, size) + np.where(rng.random(size) < share, to, 25.0)


def correlated(rng: np.random.Generator, size: Size, by: float) -> Floats:
    """Draw runs of which those of a variant and of the baseline at each seed go together."""
    groups = rng.standard_normal(size)
    groups[:, 1:] = by * groups[:, :1] + np.sqrt(1 - by**2) * groups[:, 1:]
    return groups


def scaled(groups: Floats, baseline: float = 1, first: float = 1) -> Floats:
    factors = np.ones(groups.shape[1])
    factors[:2] = baseline, first
    return groups * factors[:, None]


def beside(baseline: Draw, variants: Draw) -> Draw:
    """Draw the baseline one way and the variants another."""

    def drawn(rng: np.random.Generator, size: Size) -> Floats:
        repeats, groups, n = size
        ours = baseline(rng, (repeats, 1, n)), variants(rng, (repeats, groups - 1, n))
        return np.concatenate(ours, axis=1)

    return drawn


SHAPES: dict[str, Draw] = {
    "normal": normal,
    "Student's t, 3 degrees of freedom": student,
    "lognormal, sigma 0.8": lognormal,
    "1 run in 5 collapses, everywhere": collapsing,
    "normal, the baseline's spread x 0.3": lambda rng, size: scaled(normal(rng, size), 0.3),
}
"""Where the error of looks holds."""
LIMITS: dict[str, Draw] = {
    "lognormal 0.8, the baseline's spread x 0.3": lambda rng, size: scaled(
        lognormal(rng, size), 0.3
    ),
    "normal, correlation of a seed's runs -0.3": lambda rng, size: correlated(rng, size, -0.3),
}
"""Where it does not: documented, not bounded."""


class Estimate(NamedTuple):
    """A mean over families, and its Monte-Carlo standard error."""

    mean: float
    error: float


def estimate(parts: Iterable[NDArray[Any]]) -> Estimate:
    """Average a figure of each family, given in parts."""
    figures = np.concatenate([np.asarray(part, np.float64) for part in parts])
    return Estimate(float(figures.mean()), float(figures.std(ddof=1) / np.sqrt(len(figures))))


def families(
    draw: Draw, m: int, seeds: int, repeats: int, key: int, effect: float = 0
) -> Iterator[Floats]:
    """Yield families (at most `CHUNK`, 1 + m, seeds), by fixed seeds; variants differ by effect."""
    rng = np.random.default_rng([m, key])
    for begun in range(0, repeats, CHUNK):
        groups = draw(rng, (min(CHUNK, repeats - begun), 1 + m, seeds))
        groups[:, 1:] += effect
        yield groups


def design(pairs: int, most: int = HORIZON, futility: bool = True) -> Design:
    return Design(pairs, horizon=HORIZON, most=most, futility=futility)


def at(groups: Floats, n: int, of: Design) -> Intervals:
    """Return the look at the first n seeds of groups (repeats, 1 + m, seeds)."""
    test = by_pairs if of.paired else welch
    return test(groups[:, 1:, :n], groups[:, :1, :n], of.price(n))


def ever(groups: Floats, metric: Metric, of: Design, *said: Verdict) -> NDArray[np.bool_]:
    """Return in which families some look at some pair says so, none of them ever stopping."""
    there = np.zeros(len(groups), bool)
    for n in of.looks:
        there |= np.isin(verdicts(at(groups, n, of), metric), said).any(-1)
    return there


def false_claims(draw: Draw, m: int, repeats: int) -> Estimate:
    """Return the share of families with a claim at any of 11 looks, all means equal."""
    drawn, of = families(draw, m, FAR, repeats, key=FAR), design(m, FAR)
    return estimate(ever(groups, ANYTHING, of, *CLAIMS) for groups in drawn)


def half_taken_for_all(m: int, repeats: int) -> Estimate:
    """Return the share said to differ by as much as matters, where half of it is there."""
    drawn, of = families(normal, m, FAR, repeats, key=5, effect=0.5), design(m, FAR)
    return estimate(ever(groups, WHOLE_SD, of, *AS_MATTERS) for groups in drawn)


class Ends(NamedTuple, Generic[T]):
    """How pairs stop: seeds a side, shares said, given up too early to say, all intervals true."""

    seeds: T
    better: T
    worse: T
    same: T
    futile: T
    covered: T


class Stopped:
    """Families (repeats, m) as they stop: seeds, verdict and interval of each pair."""

    def __init__(self, groups: Floats, metric: Metric, of: Design) -> None:
        shape = len(groups), of.pairs
        self.open = np.ones(shape, bool)
        self.seeds, self.said = np.full(shape, of.most), np.full(shape, "", dtype="<U60")
        self.low, self.high = np.full(shape, np.nan), np.full(shape, np.nan)
        for n in of.looks:
            self._look(groups, n, metric, of)
        self.futile = (self.seeds < of.most) & np.isin(self.said, OPEN)

    def _look(self, groups: Floats, n: int, metric: Metric, of: Design) -> None:
        look = at(groups, n, of)
        said = verdicts(look, metric)
        self.said[self.open], self.seeds[self.open] = said[self.open], n
        self.low[self.open], self.high[self.open] = look.low[self.open], look.high[self.open]
        ends = ~np.isin(said, OPEN)
        if of.futility and n < of.horizon:
            half = (look.high - look.low) / 2
            chance = chance_at_the_horizon(look.effect, half, metric.min_effect, n, of)
            ends |= chance < HOPELESS
        self.open &= ~ends

    def figures(self, effect: float) -> Ends[NDArray[Any]]:
        """Return the figures of each family, its pairs averaged."""
        _, m = self.seeds.shape
        return Ends(
            seeds=(self.seeds.sum(-1) + self.seeds.max(-1)) / (1 + m),
            better=np.char.startswith(self.said, "better").mean(-1),
            worse=np.char.startswith(self.said, "worse").mean(-1),
            same=(self.said == Verdict.SAME.value).mean(-1),
            futile=self.futile.mean(-1),
            covered=((self.low <= effect) & (effect <= self.high)).all(-1),
        )


def stopping(effect: float, m: int, repeats: int, futility: bool = True) -> Ends[Estimate]:
    """Return how normal pairs stop that all differ by so much, half a deviation what matters."""
    drawn = families(normal, m, HORIZON, repeats, key=round(10 * effect), effect=effect)
    of = design(m, futility=futility)
    parts = [Stopped(groups, HALF_SD, of).figures(effect) for groups in drawn]
    return Ends(*map(estimate, zip(*parts, strict=True)))
