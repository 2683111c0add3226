"""Digests name what was computed: a run that is there must be found again under its own."""

from pathlib import Path
from typing import Any

import doors
import goldens
import observed
import pytest


def changed(found: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """Return what is held and no longer so; what is new may be."""
    told: dict[str, Any] = {}
    for key, value in held.items():
        now = found.get(key)
        if isinstance(value, dict) and isinstance(now, dict):
            told |= {f"{key} {inner}": pair for inner, pair in changed(now, value).items()}
        elif now != value:
            told[key] = (value, now)
    return told


@pytest.mark.parametrize("of", ["presets", "studies"])
def test_the_digest_of_what_is_shipped_is_what_it_was(of: str) -> None:
    held = goldens.stored("digests.json")[of]
    assert changed(observed.digests()[of], held) == {}


@pytest.mark.parametrize(
    "preset",
    [
        "quick",
        *(pytest.param(name, marks=pytest.mark.slow) for name in observed.AT_HAND[1:]),
    ],
)
def test_a_dry_run_tells_the_same_digest_size_and_cost(preset: str, tmp_path: Path) -> None:
    held = goldens.stored("expected/plans.json")
    with doors.plain_machine(tmp_path):
        found = observed.plans(preset)
    of_it = {name: value for name, value in held.items() if name.startswith(f"{preset} ")}
    assert len(of_it) > 30
    assert changed(found, of_it) == {}
