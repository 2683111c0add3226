import numpy as np
import pytest
from simulated import at, design, normal

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.foresight import Sight, foreseen_at
from sagan_bench.analysis.intervals import verdicts
from sagan_bench.analysis.verdicts import Metric


def foreseen(spread: float, least: float, of: Design) -> list[Sight]:
    return [foreseen_at(n, of.price(n), spread, least, paired=of.paired) for n in of.looks]


def test_what_is_foreseen_scales_with_the_spread() -> None:
    one, ten = (foreseen(sd, 0.5 * sd, design(1)) for sd in (1.0, 10.0))
    assert [look.n for look in one] == [5, 8, 12, 16, 20]
    assert [look.claimed for look in ten] == pytest.approx([10 * look.claimed for look in one])
    assert [look.same for look in ten] == pytest.approx([10 * look.same for look in one])
    assert one[-1].same == pytest.approx(1.2, abs=0.03)  # as simulated


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_four_in_five_studies_see_what_is_foreseen(m: int, place: int) -> None:
    of = design(m)
    look = foreseen(1.0, 0.5, of)[place]
    groups = normal(np.random.default_rng([m, place]), (4_000, 1 + m, look.n))
    same = verdicts(at(groups, look.n, of), Metric("x", "lower", look.same))[:, 0]
    assert (same == "no meaningful difference").mean() == pytest.approx(0.8, abs=0.03)
    groups[:, 1:] += look.claimed
    claimed = verdicts(at(groups, look.n, of), Metric("x", "lower", 0.5))[:, 0]
    assert np.char.startswith(claimed, "worse").mean() == pytest.approx(0.8, abs=0.03)


def test_a_margin_larger_than_what_can_be_told_from_0_is_what_limits() -> None:
    look = foreseen(1.0, 5.0, design(1))[-1]
    assert look.claimed > 5.0
