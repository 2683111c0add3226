"""What is said of a study and of a tuning, on the terminal, in files and on the page."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import doors
import goldens
import observed
import pytest


def held(folder: Path) -> dict[str, Any]:
    """Return file -> content of what is held in a folder."""
    return {file.name: goldens.stored(str(file)) for file in sorted(folder.iterdir())}


def alike(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Fail with all files that are not what they were."""
    told = []
    for name in sorted({*found, *wanted}):
        one, other = (
            {name: _content(name, of[name])} if name in of else {} for of in (found, wanted)
        )
        told += goldens.differences(one, other)[: goldens.SHOWN]
    assert not told, "\n" + "\n".join(told)


def _content(name: str, content: Any) -> Any:
    if name.endswith(".csv"):
        return goldens.rows(content)
    return content if name.endswith(".json") else content.splitlines()


SLOW = ("worse", "equal", "three", "missing-seeds", "two-objectives")


def some_slow(names: Iterable[str]) -> list[Any]:
    """Return names as parameters."""
    return [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in names]


@pytest.mark.parametrize("name", some_slow(observed.STUDIES))
def test_what_is_said_of_a_study_is_what_was_said(name: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        alike(observed.study(name), held(goldens.EXPECTED / "studies" / name))


@pytest.mark.parametrize("name", some_slow(observed.TUNINGS))
def test_what_is_said_of_a_tuning_is_what_was_said(name: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        alike(observed.tuning(name), held(goldens.EXPECTED / "tunings" / name))


@pytest.mark.parametrize("kind", ["studies", "tunings"])
def test_everything_that_is_held_is_compared(kind: str) -> None:
    known = {"studies": observed.STUDIES, "tunings": observed.TUNINGS}[kind]
    assert {one.name for one in (goldens.EXPECTED / kind).iterdir()} == known.keys()
