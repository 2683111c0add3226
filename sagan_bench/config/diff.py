"""What differs between two configurations, protocols or definitions: found once, told one way."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.trees import flatten

LABELS = ("preset", "variant", "name", "seed", "data.source")
"""Keys by which two runs of one configuration may differ."""
ABSENT: Final = type("Absent", (str,), {})("absent")
"""The value of a key that one of the two lacks; told by identity, shown as the word."""


class Difference(NamedTuple):
    """A key whose values differ."""

    key: str
    here: Any
    there: Any


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two mappings, nested or flat, by dotted key."""
    old, new = dict(flatten(here)), dict(flatten(there))
    pairs = (Difference(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in {**old, **new})
    differing = (pair for pair in pairs if _text(pair.here) != _text(pair.there))
    return [pair for pair in differing if not _is_told(pair)]


def _is_told(pair: Difference) -> bool:
    """Return whether a file of own components is one side's alone: what names them says so."""
    return pair.key.startswith("own.") and any(side is ABSENT for side in (pair.here, pair.there))


def in_results(here: RunConfig, there: RunConfig) -> list[Difference]:
    """Return (key, here, there) of all but the seed that changes what a run computes."""
    return differences(results(here), results(there))


def results(config: RunConfig) -> dict[str, Any]:
    """Return by dotted key all but the seed that changes what a run computes."""
    leaves = flatten({**config.model_dump(mode="json"), "own": config.needed})
    return {key: value for key, value in leaves if _changes_results(key)}


def _changes_results(key: str) -> bool:
    if key.startswith("own."):
        return key.endswith(".sha256")  # all else follows from it
    return not key.startswith(("run.", "meant.")) and key not in LABELS


def listed(pairs: Iterable[Difference], form: str = "{}: {} here, {} asked") -> str:
    """Return differences in a line."""
    return ", ".join(form.format(d.key, _text(d.here), _text(d.there)) for d in pairs)


def _text(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value)
