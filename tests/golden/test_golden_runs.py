"""What a run computes: of a few steps of each kind of network and recipe, weights and figures."""

from pathlib import Path
from typing import Any

import doors
import goldens
import observed
import pytest

WEIGHTS = {"rtol": 2e-3, "atol": 1e-4}
FIGURES = {"rtol": 2e-3, "atol": 1e-3}
"""Beyond what another CPU's last bits make of three steps: measured with and without AVX."""


def alike(found: dict[str, Any], held: dict[str, Any]) -> None:
    """Fail if a run is not what it was."""
    goldens.alike(found["weights"], held["weights"], **WEIGHTS)
    goldens.alike({**found, "weights": {}}, {**held, "weights": {}}, **FIGURES)


@pytest.mark.parametrize(
    "name",
    [
        name if name in observed.QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in observed.RECIPES
    ],
)
def test_a_recipe_ends_in_the_weights_and_figures_in_which_it_ended(
    name: str, tmp_path: Path
) -> None:
    with doors.plain_machine(tmp_path):
        found = observed.run(name)
    alike(found, goldens.stored("runs.json")[name])


def test_every_recipe_is_held() -> None:
    assert goldens.stored("runs.json").keys() == observed.RECIPES.keys()
