"""What a configuration uses of files of one's own where nothing else is said."""

from collections.abc import Mapping
from typing import Any

from sagan_bench.config.variants import ARCHITECTURE, SIDES, contrast_of
from sagan_bench.core.registry import METRICS, SOURCES

ORIGIN = "--with"
KEYS = {
    "FAMILIES": ARCHITECTURE,
    "LOSSES": "training.loss",
    "EXTRACTORS": "evaluation.extractor",
    "SOURCES": "data.source",
}
"""The registry of a kind of which a run has one -> the setting that names it."""
ALL = {"METRICS": "evaluation.metrics", "TRACKERS": "run.track"}
"""Likewise, of which it has all that there are."""


def used(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that use what files have: the only one of a kind, metrics, trackers.

    Blocks are variants, and stand nowhere in a family that is attention itself.  What must be told
    more is left to be named: a source of a path, and an extractor for a metric beside it.

    Args:
        own: the file -> its hash, and what it has.
    """
    keys = [key for described in own.values() for key in described["components"]]
    of = {kind: [key.partition("/")[2] for key in keys if key.startswith(f"{kind}/")]
          for kind in (*KEYS, *ALL)}  # fmt: skip
    apart = {METRICS[name].extractor for name in of["METRICS"]}
    of["EXTRACTORS"] = [name for name in of["EXTRACTORS"] if name not in apart]
    of["SOURCES"] = [name for name in of["SOURCES"] if ":" not in SOURCES[name].usage]
    settings: dict[str, Any] = {KEYS[k]: of[k][0] for k in KEYS if len(of[k]) == 1}
    if (family := settings.get(ARCHITECTURE)) and contrast_of(family):
        settings |= {key: [] for key in SIDES}
    return settings | {key: of[kind] for kind, key in ALL.items() if of[kind]}
