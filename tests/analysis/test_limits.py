"""Where the rule's error rate does not hold: measured, and told of runs that look so."""

import numpy as np
import pytest

from sagan_bench.analysis.limits import Doubt, Irregularity, doubts
from sagan_bench.analysis.verdicts import Lost, Runs

EVEN = dict(enumerate([0.50, 0.52, 0.49, 0.51, 0.53]))
PAIR = ("a", "b")


def test_regular_runs_raise_no_doubt() -> None:
    assert doubts({"a": EVEN, "b": {seed: value + 0.3 for seed, value in EVEN.items()}}, PAIR) == ()


def test_a_collapse_is_a_far_outlier() -> None:
    collapsed = {0: 25.1, 1: 24.8, 2: 200.0, 3: 25.3, 4: 25.0}
    steady = {seed: 60 + value for seed, value in EVEN.items()}
    assert doubts({"a": steady, "b": collapsed}, PAIR) == (
        Doubt("b", "a", Irregularity.SKEWED_AND_UNEQUAL),
        Doubt("b", "a", Irregularity.FAR_OUTLIER, 2),
    )


def test_skew_with_unequal_spread_is_named_by_the_wider_group() -> None:
    tailed = {0: 0.01, 1: 0.02, 2: 0.03, 3: 0.05, 4: 0.20}
    assert Doubt("a", "b", Irregularity.SKEWED_AND_UNEQUAL) in doubts(
        {"a": tailed, "b": EVEN}, PAIR
    )
    symmetric = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5}
    assert doubts({"a": symmetric, "b": EVEN}, PAIR) == ()


def test_a_group_without_spread_is_as_unequal_as_can_be() -> None:
    tailed, same = {0: 0.01, 1: 0.02, 2: 0.03, 3: 0.05, 4: 0.20}, dict.fromkeys(range(5), 0.5)
    assert Doubt("a", "b", Irregularity.SKEWED_AND_UNEQUAL) in doubts(
        {"a": tailed, "b": same}, PAIR
    )


def test_lost_runs_and_small_groups_are_not_looked_at() -> None:
    few: Runs = {0: 1.0, 1: Lost.DIVERGED, 2: 100.0, 3: 1.1, 4: Lost.FAILED}
    assert doubts({"a": few, "b": EVEN}, PAIR) == ()
    assert doubts({"a": dict.fromkeys(range(5), 0.5), "b": EVEN}, PAIR) == ()


@pytest.mark.parametrize(("n", "at_most"), [(5, 0.18), (10, 0.04)])
def test_normal_runs_seldom_look_irregular(n: int, at_most: float) -> None:
    rng = np.random.default_rng(3)
    groups = rng.normal(size=(500, 2, n))
    looked = [
        bool(doubts({"a": dict(enumerate(ours)), "b": dict(enumerate(theirs))}, PAIR))
        for ours, theirs in groups.tolist()
    ]
    assert sum(looked) / len(looked) < at_most
