"""Whether a curve had settled."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sagan_bench.analysis.settling import Ending, settled
from sagan_bench.core.errors import UserError


def test_a_flat_end_has_settled_and_the_start_is_not_looked_at() -> None:
    steps = [float(step) for step in range(0, 1001, 10)]
    values = [20 + 300 * math.exp(-step / 50) for step in steps]
    found = settled(steps, values)
    assert found.state is Ending.SETTLED
    assert found.change == pytest.approx(0, abs=1e-4)


def test_the_change_is_that_of_the_line_through_the_last_fifth() -> None:
    steps, values = [0, 800, 850, 900, 1000], [500, 30, 29, 29, 26]
    line = stats.linregress(steps[1:], values[1:])
    found = settled(steps, values)
    assert found.change == pytest.approx(line.slope * 200)
    assert found.standard_error == pytest.approx(line.stderr * 200)
    assert settled([1000 + step for step in steps], values).change == pytest.approx(found.change)


def test_near_0_the_change_is_judged_by_what_matters() -> None:
    steps = list(range(0, 1001, 50))
    values = [0.01 + 0.004 * (step >= 900) for step in steps]  # of which 5 % is nothing
    assert settled(steps, values).state is Ending.UNKNOWN
    assert settled(steps, values, 0.05).state is Ending.SETTLED
    assert settled(steps, [step / 1000 for step in steps], 0.05).state is Ending.UNSETTLED


@pytest.mark.parametrize("rho", [0.9, 0.95])
@pytest.mark.parametrize("points", [40, 100, 500])
def test_neighbours_that_go_together_do_not_look_like_a_trend(points: int, rho: float) -> None:
    """Of flat curves with 5 % noise, taken as independent, 23 % were called unsettled at 100."""
    rng, late = np.random.default_rng([points, int(100 * rho)]), Counter[Ending]()
    falling = Counter[Ending]()
    for _ in range(200):
        noise = rng.standard_normal(points) * 0.05
        for at in range(1, points):
            noise[at] = rho * noise[at - 1] + math.sqrt(1 - rho**2) * noise[at]
        steps = np.arange(points)
        fall = 0.08 * np.clip((steps / points - 0.8) / 0.2, 0, 1)
        late[settled(list(steps), list(1 + noise)).state] += 1
        falling[settled(list(steps), list(1 + noise - fall)).state] += 1
    assert late[Ending.UNSETTLED] <= 16
    assert falling[Ending.SETTLED] <= 16


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("change", "noise", "ending"),
    [
        (0.04, 0.001, Ending.SETTLED),
        (-0.04, 0.001, Ending.SETTLED),
        (0.06, 0.001, Ending.UNSETTLED),
        (-0.06, 0.001, Ending.UNSETTLED),
        (0.04, 0.05, Ending.UNKNOWN),
        (0.06, 0.05, Ending.UNKNOWN),
    ],
)
def test_a_curve_has_settled_where_the_interval_of_its_change_is_within_5_percent(
    sign: int, change: float, noise: float, ending: Ending
) -> None:
    steps = np.arange(101)
    values = 20 * (1 + change * (steps - 90) / 20 + noise * (-1.0) ** steps)
    assert settled(list(steps), list(sign * values)).state is ending


def test_too_short_a_curve_cannot_tell() -> None:
    for steps, values in (([], []), ([5], [2.0]), ([0, 50, 90, 100], [9.0, 8.0, 7.0, 7.0])):
        assert settled(steps, values).change is None
    assert settled([0, 90, 95, 100], [3.0, -1.0, 2.0, -1.0]).state is Ending.UNKNOWN


@pytest.mark.parametrize(
    ("steps", "values"),
    [([0, 1, 1], [1, 2, 3]), ([0, 1], [1, 2, 3]), ([0, 1, 2], [1, math.nan, 3])],
)
def test_curves_that_cannot_be_read_are_refused(steps: Any, values: Any) -> None:
    with pytest.raises(UserError, match="rising steps and one finite value"):
        settled(steps, values)
