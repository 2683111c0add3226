"""What looks cost."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from sagan_bench.analysis.design import looks
from sagan_bench.analysis.prices import boundaries, prices, spent

GRID = (5, 8, 12, 16, 20, 26, 34, 44, 57, 74, 96)
TABLE = {
    pairs: [float(price) for price in line.split()]
    for pairs, line in {
        1: ".01125 .01029 .01416 .01721 .02033 .00575 .00335 .00220 .00153 .00110 .00079",
        2: ".00562 .00491 .00670 .00803 .00938 .00245 .00142 .00093 .00065 .00047 .00034",
        4: ".00281 .00236 .00320 .00379 .00438 .00107 .00062 .00041 .00029 .00021 .00015",
        8: ".00141 .00114 .00154 .00180 .00206 .00048 .00028 .00018 .00013 .00010 .00007",
    }.items()
}
"""By pairs, as another program computed them."""


@pytest.mark.parametrize("pairs", TABLE)
def test_prices_are_those_of_the_table(pairs: int) -> None:
    priced = prices(pairs, 20, 96)
    assert tuple(priced) == GRID
    assert [round(price, 5) for price in priced.values()] == TABLE[pairs]


def test_a_later_end_changes_no_price() -> None:
    until_20 = prices(4, 20, 20)
    assert until_20 == {n: p for n, p in prices(4, 20, 96).items() if n <= 20}


def test_the_horizon_is_a_look_wherever_it_is() -> None:
    assert looks(10, 10) == [5, 8, 10]
    assert looks(30, 40) == [5, 8, 12, 16, 20, 26, 30, 34]
    assert looks(5, 5) == [5]


def test_all_that_is_ever_spent_is_alpha() -> None:
    assert spent(20, 20, 0.05) == pytest.approx(0.045)
    assert spent(10**9, 20, 0.05) == pytest.approx(0.05)
    steps = np.diff([0, *(spent(n, 20, 0.05) for n in range(1, 21))])
    assert steps == pytest.approx(np.full(20, 0.045 / 20))


@pytest.mark.parametrize(("power", "published"), [(0.5, 2.413), (0.0, 2.040)])
def test_boundaries_are_those_of_pocock_and_of_o_brien_and_fleming(
    power: float, published: float
) -> None:
    """Five equal looks at 0.05: |Z_k| >= 2.413, or |Z_k| >= 2.040 sqrt(5 / k)."""
    times = [1, 2, 3, 4, 5]

    def spending(constant: float) -> list[float]:
        bounds = [constant * math.sqrt(5) * (k / 5) ** power for k in times]
        return crossed(times, bounds)

    constant = brentq(lambda c: sum(spending(c)) - 0.05, 1.5, 3)
    assert constant == pytest.approx(published, abs=5e-4)
    bounds = [constant * math.sqrt(5) * (k / 5) ** power for k in times]
    assert boundaries(times, spending(constant)) == pytest.approx(bounds, abs=1e-4)


def crossed(times: list[int], bounds: list[float]) -> list[float]:
    """Return the chance of crossing for the first time at each look, on a fine grid of sums."""
    edges = np.linspace(-12, 12, 4801)
    width = edges[1] - edges[0]
    density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    step, chances = density.copy(), []
    for k, bound in zip(times, bounds, strict=True):
        if k > 1:
            density = np.convolve(density, step, mode="same") * width
        inside = np.clip((bound - np.abs(edges)) / width + 0.5, 0, 1)
        chances.append(float((density * (1 - inside)).sum() * width))
        density = density * inside
    return chances


@pytest.mark.slow
def test_the_error_spent_is_what_sums_of_normals_spend() -> None:
    rng = np.random.default_rng(0)
    priced = prices(1, 20, 96)
    sums = np.zeros(200_000)
    out, n = np.zeros(len(sums), bool), 0
    for look, price in priced.items():
        sums += math.sqrt(look - n) * rng.standard_normal(len(sums))
        n = look
        z = abs(sums) / math.sqrt(look)
        out |= np.array([math.erfc(x / math.sqrt(2)) for x in z]) <= price
    assert out.mean() == pytest.approx(spent(96, 20, 0.05), abs=0.0015)
