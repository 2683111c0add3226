"""How often looks claim wrongly, and after how many seeds they decide: `-m slow -rP` shows it.

The figures are those of docs/statistics.md, which a test reads from there.
"""

import re
from pathlib import Path

import pytest
from simulated import LIMITS, SHAPES, false_claims, half_taken_for_all, stopping

REPEATS = 10_000
DOCUMENT = Path(__file__).parents[2] / "docs/statistics.md"


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
    rates = [false_claims((SHAPES | LIMITS)[shape], m, REPEATS).mean for m in (1, 4, 8)]
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
    rate = half_taken_for_all(m, REPEATS).mean
    print(f"{m} pairs: {rate:.4f}")
    assert rate <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("m", "most"), [(1, 8.0), (4, 10.0), (8, 11.0)])
def test_two_standard_deviations_are_seen_after_few_seeds(m: int, most: float) -> None:
    ends = stopping(2.0, m, REPEATS)
    print(f"{m} pairs: {ends.seeds.mean:.2f} seeds a side, power {ends.worse.mean:.4f}")
    assert [ends.seeds.mean, 100 * ends.worse.mean] == pytest.approx(
        documented("Seeds a side until it is conclusive")[str(m)], abs=0.15
    )
    assert ends.worse.mean >= 0.98
    assert ends.seeds.mean <= most


@pytest.mark.slow
def test_a_null_that_cannot_be_shown_is_given_up_early() -> None:
    ends = stopping(0.0, 1, REPEATS)
    print(f"{ends.seeds.mean:.2f} seeds a side, given up {ends.futile.mean:.4f}")
    assert ends.seeds.mean <= 12.5


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 4, 8])
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
def test_the_interval_at_the_stop_covers(m: int, effect: float) -> None:
    covered = stopping(effect, m, REPEATS).covered.mean
    print(f"{m} pairs, effect {effect}: {covered:.4f}")
    assert covered >= 0.95
