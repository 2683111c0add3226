"""Where the spread of runs comes from: training, or the images that are drawn to score it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.variants import median_of
from sagan_bench.analysis.verdicts import ALPHA, Interval, Lost, Outcomes, Pair
from sagan_bench.runs.run import Run

APART = 2 / math.sqrt(math.pi)
"""Mean difference of two normal runs over their standard deviation."""


@dataclass(frozen=True)
class Spread:
    """How a variant's runs spread, and of what; null is what its scores do not say.

    Attributes:
        variant: whose.
        runs: with a figure.
        mean: of them.
        sd: of them, the images that were drawn included.
        apart: mean difference of two seeds, as a share of the mean.
        samples: sampling seeds that each run's figure is the mean of.
        sampling_sd: of a score with a single sampling seed, of one and the same weights.
        sampling_share: of the variance between runs, what the drawn images alone make.
        cheapest: sampling seeds a run with which a verdict is cheapest, by the seconds recorded.
        repeated: runs that were scored with several sampling seeds.
        drawn: sampling seeds of the run that was scored with most, later ones too.
        train_sec: seconds that a run trains, the median.
        sample_sec: seconds of a sampling seed of a run, likewise; with scores on the way, at most.
    """

    variant: str
    runs: int
    mean: float
    sd: float
    apart: float | None
    samples: int
    sampling_sd: float | None
    sampling_share: float | None
    cheapest: int | None
    repeated: int = 0
    drawn: int = 1
    train_sec: float | None = None
    sample_sec: float | None = None


def spread(
    variant: str,
    values: Sequence[float],
    scores: Sequence[Sequence[float]],
    *,
    samples: int = 1,
    share_of: int | None = None,
    train_sec: float | None = None,
    sample_sec: float | None = None,
) -> Spread | None:
    """Return how runs spread; None of fewer than two.

    Args:
        variant: whose.
        values: of each run, the figure that counts.
        scores: of each run, its value by each sampling seed that it was scored with.
        samples: sampling seeds that each figure is the mean of.
        share_of: images of which values are shares: what drawing them does is then known.
        train_sec: seconds that a run trains.
        sample_sec: seconds of a sampling seed of a run.
    """
    if len(values) < 2 or not math.isfinite(between := _variance(values)):
        return None
    mean = fmean(values)
    sampling = _sampling_variance(scores, share_of)
    share = None
    if sampling is not None and between > 0:
        share = min(1.0, sampling / samples / between)
    return Spread(
        variant=variant,
        runs=len(values),
        mean=mean,
        sd=math.sqrt(between),
        apart=APART * math.sqrt(between) / abs(mean) if mean else None,
        samples=samples,
        sampling_sd=None if sampling is None else math.sqrt(sampling),
        sampling_share=share,
        cheapest=_cheapest(sampling, between, samples, train_sec, sample_sec),
        repeated=sum(len(of) > 1 for of in scores),
        drawn=max(map(len, scores)),
        train_sec=train_sec,
        sample_sec=sample_sec,
    )


def of_variants(runs: RunSet, metric: str) -> tuple[Spread, ...]:
    """Return how the runs of each variant spread that has two with a figure."""
    return tuple(filter(None, (_of(name, metric, runs) for name in runs.variants)))


def _of(name: str, metric: str, runs: RunSet) -> Spread | None:
    outcomes = [(run, runs.outcome(run, runs.at_the_end(metric))) for run in runs.variants[name]]
    usable = [run for run, value in outcomes if not isinstance(value, Lost)]
    return spread(
        name,
        [value for _, value in outcomes if not isinstance(value, Lost)],
        [runs.samples(run, metric) for run in usable],
        samples=runs.sampling_seeds(metric),
        share_of=runs.share_of(metric),
        train_sec=median_of(run.record.cost.train_sec for run in usable),
        sample_sec=median_of(map(_sample_sec, usable)),
    )


def _sample_sec(run: Run) -> float | None:
    """Return what a sampling seed of a run took at most: scores on the way are not told apart."""
    seconds = run.record.cost.score_sec
    return None if seconds is None else seconds / len(run.sampling_seeds)


def of_pairs(outcomes: Outcomes, pairs: Sequence[Pair]) -> dict[Pair, tuple[float, Interval]]:
    """Return the correlation of runs at the same seed of each pair that has enough of them."""
    values = {
        name: {seed: value for seed, value in of.items() if not isinstance(value, Lost)}
        for name, of in outcomes.items()
    }
    known = {pair: correlation(values[pair[0]], values[pair[1]]) for pair in pairs}
    return {pair: of for pair, of in known.items() if of}


@np.errstate(all="ignore")  # of values near the ends of what a number holds
def _variance(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1))


def _sampling_variance(scores: Sequence[Sequence[float]], share_of: int | None) -> float | None:
    """Return the variance of a score of the same weights: as seen, else that of a share."""
    repeated = [of for of in scores if len(of) > 1]
    if repeated:
        weights = [len(of) - 1 for of in repeated]
        seen = float(np.average([_variance(of) for of in repeated], weights=weights))
        if seen or not share_of:
            return seen
    if share_of:
        return fmean(max(0.0, value * (1 - value)) / share_of for of in scores for value in of)
    return None


def _cheapest(
    sampling: float | None,
    between: float,
    samples: int,
    train_sec: float | None,
    sample_sec: float | None,
) -> int | None:
    """Return K, the sampling seeds a run that make the variance of a mean least for its seconds.

    It is sqrt(sampling variance / training variance * seconds of training / of one more sample).
    """
    if sampling is None or not train_sec or not sample_sec:
        return None
    training = between - sampling / samples
    if training <= 0:
        return None
    return max(1, round(math.sqrt(sampling / training * train_sec / sample_sec)))


def correlation(x: Mapping[int, float], y: Mapping[int, float]) -> tuple[float, Interval] | None:
    """Return Pearson's correlation of runs of the same seed, and its 95 % interval (Fisher).

    Of fewer than four seeds, or values that are all equal, there is none.
    """
    seeds = sorted(x.keys() & y.keys())
    ours, theirs = [x[seed] for seed in seeds], [y[seed] for seed in seeds]
    if len(seeds) < 4 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return None
    with np.errstate(all="ignore"):
        r = float(np.corrcoef(ours, theirs)[0, 1])
    if math.isnan(r):
        return None
    if not -1 < r < 1:
        return (r, (r, r))
    half = float(stats.norm.isf(ALPHA / 2)) / math.sqrt(len(seeds) - 3)
    return r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
