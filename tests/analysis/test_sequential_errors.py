"""How often looks claim wrongly, and after how many seeds they decide: `-m slow -rP` shows it.

The figures are those of docs/statistics.md, which a test reads from there.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_false_claims import Draw, collapsing, lognormal, normal, scaled

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.intervals import Intervals, by_pairs, verdicts, welch
from sagan_bench.analysis.sequential import HOPELESS, chance_at_the_horizon
from sagan_bench.analysis.verdicts import Floats, Metric, Verdict

REPEATS = 10_000
DOCUMENT = Path(__file__).parents[2] / "docs/statistics.md"
ENDS = [Verdict.INCONCLUSIVE.value, Verdict.DIFFERS.value]
"""What does not stop a pair."""
AS_MATTERS = Verdict.BETTER_AS_MATTERS, Verdict.WORSE_AS_MATTERS
CLAIMS = Verdict.BETTER, Verdict.WORSE, *AS_MATTERS


def design(pairs: int, most: int = 20) -> Design:
    return Design(pairs, horizon=20, most=most)


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


class Stopped:
    """Families (repeats, m) as they stop: seeds, verdict and interval of each pair."""

    def __init__(self, groups: Floats, metric: Metric, of: Design) -> None:
        shape = len(groups), of.pairs
        self.open = np.ones(shape, bool)
        self.seeds, self.said = np.full(shape, of.most), np.full(shape, "", dtype="<U60")
        self.low, self.high = np.full(shape, np.nan), np.full(shape, np.nan)
        for n in of.looks:
            self._look(groups, n, metric, of)
        of_baseline = self.seeds.max(-1)
        self.mean_seeds = float((self.seeds.sum(-1) + of_baseline).mean() / (1 + of.pairs))

    def _look(self, groups: Floats, n: int, metric: Metric, of: Design) -> None:
        look = at(groups, n, of)
        said = verdicts(look, metric)
        self.said[self.open], self.seeds[self.open] = said[self.open], n
        self.low[self.open], self.high[self.open] = look.low[self.open], look.high[self.open]
        ends = ~np.isin(said, ENDS)
        if n < of.horizon:
            half = (look.high - look.low) / 2
            chance = chance_at_the_horizon(look.effect, half, metric.min_effect, n, of)
            ends |= chance < HOPELESS
        self.open &= ~ends


def collapse(rng: np.random.Generator, size: tuple[int, int, int]) -> Floats:
    return collapsing(rng, size, 0.2, 200)


SHAPES: dict[str, Draw] = {
    "normal": normal,
    "Student's t, 3 degrees of freedom": lambda rng, size: rng.standard_t(3, size),
    "lognormal, sigma 0.8": lognormal,
    "1 run in 5 collapses, everywhere": collapse,
    "normal, the baseline's spread x 0.3": lambda rng, size: scaled(normal(rng, size), 0.3),
}
LIMITS: dict[str, Draw] = {
    "lognormal 0.8, the baseline's spread x 0.3": lambda rng, size: scaled(
        lognormal(rng, size), 0.3
    ),
    "normal, correlation of a seed's runs -0.3": lambda rng, size: correlated(rng, size, -0.3),
}


def correlated(rng: np.random.Generator, size: tuple[int, int, int], by: float) -> Floats:
    """Draw runs of which those of a variant and of the baseline at one seed go together."""
    groups = rng.standard_normal(size)
    groups[:, 1:] = by * groups[:, :1] + np.sqrt(1 - by**2) * groups[:, 1:]
    return groups


def false_claims(draw: Draw, m: int) -> float:
    """Return the share of families with a claim at any of 11 looks up to 96 seeds."""
    groups = draw(np.random.default_rng([m, 96]), (REPEATS, 1 + m, 96))
    anything = Metric("x", "lower", 0.0)
    return float(ever(groups, anything, design(m, 96), *CLAIMS).mean())


def documented(heading: str) -> dict[str, list[float]]:
    """Return a table of docs/statistics.md below a heading: row -> its numbers."""
    (section,) = re.findall(
        rf"^### {heading}\n(.*?)(?=^#|\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    rows = re.findall(r"^\| ([^|]+?) \|((?: [\d.]+ \|)+)$", section, re.MULTILINE)
    return {row: [float(cell) for cell in cells.split("|")[:-1]] for row, cells in rows}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SHAPES, *LIMITS])
def test_false_claims_of_a_study_that_never_stops(shape: str) -> None:
    rates = [false_claims((SHAPES | LIMITS)[shape], m) for m in (1, 4, 8)]
    print(f"| {shape} |", *(f"{100 * rate:.1f} |" for rate in rates))
    there = documented("False claims until 96 seeds")[shape]
    assert [100 * rate for rate in rates] == pytest.approx(there, abs=0.75)
    if shape in SHAPES:
        assert max(rates) <= (0.075 if "0.3" in shape else 0.055)
    else:
        assert max(rates) > 0.075


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 4, 8])
def test_as_much_as_matters_is_hardly_ever_said_of_half_of_it(m: int) -> None:
    groups = normal(np.random.default_rng([m, 5]), (REPEATS, 1 + m, 96))
    groups[:, 1:] += 0.5
    rate = ever(groups, Metric("x", "lower", 1.0), design(m, 96), *AS_MATTERS).mean()
    print(f"{m} pairs: {rate:.4f}")
    assert rate <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("m", "most"), [(1, 8.0), (4, 10.0), (8, 11.0)])
def test_two_standard_deviations_are_seen_after_few_seeds(m: int, most: float) -> None:
    groups = normal(np.random.default_rng([m, 2]), (REPEATS, 1 + m, 20))
    groups[:, 1:] += 2.0
    study = Stopped(groups, Metric("x", "lower", 0.5), design(m))
    power = float(np.char.startswith(study.said, "worse").mean())
    covered = float(((study.low <= 2.0) & (study.high >= 2.0)).all(-1).mean())
    print(f"{m} pairs: {study.mean_seeds:.2f} seeds a side, power {power:.4f}, {covered:.4f}")
    assert [study.mean_seeds, 100 * power] == pytest.approx(
        documented("Seeds a side until it is conclusive")[str(m)], abs=0.15
    )
    assert power >= 0.98
    assert study.mean_seeds <= most
    assert covered >= 0.95


@pytest.mark.slow
def test_a_null_that_cannot_be_shown_is_given_up_early() -> None:
    groups = normal(np.random.default_rng(3), (REPEATS, 2, 20))
    study = Stopped(groups, Metric("x", "lower", 0.5), design(1))
    print(f"{study.mean_seeds:.2f} seeds a side")
    assert study.mean_seeds <= 12.5


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 4, 8])
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_interval_at_the_stop_covers(m: int, effect: float) -> None:
    groups = normal(np.random.default_rng([m, int(effect)]), (REPEATS, 1 + m, 20))
    groups[:, 1:] += effect
    study = Stopped(groups, Metric("x", "lower", 0.5), design(m))
    covered = ((study.low <= effect) & (effect <= study.high)).all(-1).mean()
    print(f"{m} pairs, effect {effect}: {covered:.4f}")
    assert covered >= 0.95
