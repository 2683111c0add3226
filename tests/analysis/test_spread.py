import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from sagan_bench.analysis.drawing import standard_error
from sagan_bench.analysis.spread import Spread, correlation, spread


def drawn(training: float, sampling: float, runs: int, samples: int) -> list[list[float]]:
    rng = np.random.default_rng(0)
    levels = 10 + training * rng.standard_normal((runs, 1))
    return (levels + sampling * rng.standard_normal((runs, samples))).tolist()


def of_means(scores: list[list[float]], **more: Any) -> Spread:
    """The spread of runs whose figures are the means of all their scores."""
    of = spread("a", [fmean(own) for own in scores], scores, samples=len(scores[0]), **more)
    assert of
    return of


def test_the_parts_of_the_spread_are_told_apart() -> None:
    of = of_means(drawn(training=2, sampling=1, runs=4_000, samples=4))
    assert of
    assert of.sampling_sd == pytest.approx(1, abs=0.03)
    assert of.sd == pytest.approx(math.sqrt(4 + 1 / 4), abs=0.06)
    assert of.sampling_share == pytest.approx((1 / 4) / (4 + 1 / 4), abs=0.01)


def test_what_drawing_does_is_known_from_the_runs_that_were_scored_again() -> None:
    of = spread("a", [1.0, 2.0, 4.0], [[1.0, 3.0], [2.0], [4.0, 4.0, 4.0]])
    assert of
    assert (of.repeated, of.drawn, of.samples) == (2, 3, 1)
    assert of.sampling_sd == pytest.approx(math.sqrt(2 / 3))  # of three degrees of freedom
    assert of.sampling_share == pytest.approx((2 / 3) / (7 / 3))


def test_two_seeds_differ_by_what_is_said() -> None:
    runs = drawn(training=2, sampling=0, runs=2_000, samples=1)
    of = of_means(runs)
    values = [value for (value,) in runs]
    pairs = [abs(x - y) for x, y in zip(values[::2], values[1::2], strict=True)]
    assert of.apart == pytest.approx(np.mean(pairs) / np.mean(values), rel=0.05)
    assert of.sampling_share is None


def test_of_a_share_the_images_drawn_say_what_drawing_them_does() -> None:
    rng = np.random.default_rng(1)
    runs = (rng.binomial(1_024, 0.2, (4_000, 1)) / 1_024).tolist()
    of = of_means(runs, share_of=1_024)
    assert of.sampling_share == pytest.approx(1, abs=0.05)
    assert standard_error([0.2], 1_024) == pytest.approx(0.0125, rel=0.01)
    assert standard_error([0.0], 1_024) == pytest.approx(0.00137, rel=0.01)
    assert standard_error([0.2]) is None
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("sampling", [0.5, 2.0, 8.0])
def test_the_cheapest_number_of_samples_is_that_of_least_variance_for_its_seconds(
    sampling: float,
) -> None:
    train, score, samples = 100.0, 5.0, 3
    scores = drawn(training=2, sampling=sampling, runs=3_000, samples=samples)
    of = of_means(scores, train_sec=train, sample_sec=score)
    costs = {k: (4 + sampling**2 / k) * (train + score * k) for k in range(1, 60)}
    best = min(costs, key=costs.__getitem__)
    assert of.cheapest is not None
    assert costs[of.cheapest] <= 1.02 * costs[best]


def test_runs_of_a_seed_that_go_together_are_seen() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(5_000)
    y = 0.6 * x + 0.8 * rng.standard_normal(5_000)
    found = correlation(dict(enumerate(x)), dict(enumerate(y)))
    assert found
    r, (low, high) = found
    assert low < 0.6 < high
    assert high - low < 0.05
    assert r == pytest.approx(0.6, abs=0.03)
    assert correlation({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.0, 1: 2.0, 2: 3.0}) is None
    assert correlation(dict.fromkeys(range(9), 1.0), dict(enumerate(x[:9]))) is None


def test_the_interval_of_a_correlation_covers_it() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1_000):
        x = rng.standard_normal(8)
        y = 0.5 * x + math.sqrt(0.75) * rng.standard_normal(8)
        found = correlation(dict(enumerate(x)), dict(enumerate(y)))
        assert found
        inside += found[1][0] <= 0.5 <= found[1][1]
    assert 0.93 <= inside / 1_000 <= 0.97
