"""What ``--json`` prints: values where they are of the program, else keys and types."""

from pathlib import Path
from typing import Any

import doors
import goldens
import observed
import pytest


def lost(found: Any, held: Any) -> list[str]:
    """Return the differences but for what is new in a table of names."""
    return [
        one for one in goldens.differences(found, held) if one.count("/") > 1 or "much" not in one
    ]


SLOW = ("variants", "plans_of_studies")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in observed.SHIPPED
    ],
)
def test_what_is_told_of_what_is_shipped_is_what_was_told(name: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        found = observed.SHIPPED[name]()
    assert lost(found, goldens.stored(f"expected/{name}.json")) == []


def test_the_json_of_every_verb_has_the_keys_and_types_that_it_had(tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        found = observed.shapes()
    goldens.alike(found, goldens.stored("expected/json_shapes.json"))
