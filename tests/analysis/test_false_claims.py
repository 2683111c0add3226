"""How often the rule claims a difference of means where there is none: `-m slow -rP` shows it.

The figures are those of docs/statistics.md, which a test reads from there.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from simulated import (
    ANYTHING,
    Draw,
    beside,
    beta,
    collapsing,
    lognormal,
    normal,
    scaled,
    student,
)

from sagan_bench.analysis.intervals import verdicts, welch

REPEATS = 10_000
SIZES = [(m, n) for m in (1, 4, 8) for n in (5, 8, 10)]
"""Comparisons of a family, and seeds of each group."""
TABLE = Path(__file__).parents[2] / "docs/statistics.md"


SHAPES: dict[str, Draw] = {
    "normal": normal,
    "Student's t, 3 degrees of freedom": student,
    "lognormal, sigma 0.25": lambda rng, size: lognormal(rng, size, 0.25),
    "lognormal, sigma 0.8": lognormal,
    "1 run in 5 collapses, everywhere": collapsing,
    "shares near 0 (0.02 ± 0.02)": lambda rng, size: beta(rng, size, 0.02, 0.02),
    "shares near 1 (0.97 ± 0.02)": lambda rng, size: beta(rng, size, 0.97, 0.02),
    "counts with ties (2 of 1,024)": lambda rng, size: rng.binomial(1024, 2 / 1024, size).astype(
        np.float64
    ),
    "normal, the baseline's spread x 0.3": lambda rng, size: scaled(normal(rng, size), 0.3),
    "lognormal 0.8 against a normal baseline": beside(normal, lognormal),
}
"""Where the 5 % hold."""
LIMITS: dict[str, Draw] = {
    "lognormal 0.8, one variant's spread x 4": lambda rng, size: scaled(
        lognormal(rng, size), first=4
    ),
    "lognormal 0.8, the baseline's spread x 4": lambda rng, size: scaled(lognormal(rng, size), 4),
    "lognormal 0.8, the baseline's spread x 0.3": lambda rng, size: scaled(
        lognormal(rng, size), 0.3
    ),
    "shares of 0.06, spread 0.06 against the baseline's 0.015": beside(
        lambda rng, size: beta(rng, size, 0.06, 0.015),
        lambda rng, size: beta(rng, size, 0.06, 0.06),
    ),
    "1 baseline run in 5 collapses (a simulated FID, 25 to 200)": beside(
        collapsing,
        lambda rng, size: normal(rng, size, 25 + 0.2 * 175),
    ),
    "1 baseline run in 10 collapses (likewise, 25 to 40)": beside(
        lambda rng, size: collapsing(rng, size, 0.1, 40),
        lambda rng, size: normal(rng, size, 25 + 0.1 * 15),
    ),
}
"""Where they do not: documented, not bounded."""


def measured(draw: Draw) -> list[float]:
    """Return the share of families with a false claim, for each of the sizes."""
    rates = []
    for m, n in SIZES:
        groups = draw(np.random.default_rng([m, n]), (REPEATS, 1 + m, n))
        said = verdicts(welch(groups[:, 1:], groups[:, :1]), ANYTHING)
        claims = np.char.startswith(said, "better") | np.char.startswith(said, "worse")
        rates.append(float(claims.any(-1).mean()))
    return rates


def documented() -> dict[str, list[float]]:
    """Return the table of docs/statistics.md: shape -> false claims in percent."""
    rows = re.findall(r"^\| ([^|]+?) \|((?: [\d.]+ \|){9})$", TABLE.read_text(), re.MULTILINE)
    return {shape: [float(cell) for cell in cells.split("|")[:-1]] for shape, cells in rows}


def test_every_shape_is_documented() -> None:
    assert [*documented()] == [*SHAPES, *LIMITS]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SHAPES, *LIMITS])
def test_false_claims_are_as_documented(shape: str) -> None:
    rates = measured((SHAPES | LIMITS)[shape])
    print(f"| {shape} |", *(f"{100 * rate:.1f} |" for rate in rates))
    assert [100 * rate for rate in rates] == pytest.approx(documented()[shape], abs=0.75)
    if shape in SHAPES:
        assert max(rates) <= 0.07
    else:
        assert max(rates) > 0.1
