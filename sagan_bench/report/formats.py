"""Numbers, counts and settings as a reader of a page has them."""

import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = "—"
MINUTE, HOUR = 60, 3600
LISTED = 8
"""Variants whose figures a title names."""


def decimals(values: Iterable[float | None]) -> int:
    """Return the decimals at which the largest of a column has three digits; one at least."""
    largest = max((abs(value) for value in values if value), default=1.0)
    if largest >= 10_000:
        return 0
    return min(6, max(1, 2 - math.floor(math.log10(largest))))


def number(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Return a number with thousands separators and a true minus; a dash where there is none."""
    if value is None:
        return MISSING
    places = (0 if isinstance(value, int) else decimals([value])) if places is None else places
    return f"{value:{'+' if signed else ''},.{places}f}".replace("-", "−")


def span(interval: tuple[float, float] | None, places: int) -> str:
    """Return an interval in brackets; a dash where there is none."""
    if interval is None:
        return MISSING
    low, high = (number(bound, places, signed=True) for bound in interval)
    return f"[{low}, {high}]"


def command(*words: object) -> str:
    """Return a command line of this program for a reader to copy: odd names are quoted."""
    return shlex.join(["python", "cli.py", *map(str, words)])


def compact(value: float | None) -> str:
    """Return a large number with its unit: 1.2 M."""
    if value is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(sec: float | None) -> str:
    """Return seconds in the unit that suits them."""
    if sec is None:
        return MISSING
    if sec < 2 * MINUTE:
        return f"{sec:.0f} s"
    return f"{sec / MINUTE:.0f} min" if sec < 2 * HOUR else f"{sec / HOUR:.1f} h"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 run, 2 runs."""
    return f"{count} {noun if count == 1 else many(noun)}"


def by_variant(runs: Mapping[str, int]) -> str:
    """Return how many runs each variant has: 2 runs of sagan, 1 run of wider."""
    return ", ".join(f"{plural(count, 'run')} of {variant}" for variant, count in runs.items())


def many(noun: str) -> str:
    """Return the plural of a noun."""
    return noun + ("es" if noun.endswith("ch") else "s")


def listed(parts: Iterable[str]) -> str:
    """Return parts in a line, so many of them as a title has; the table has the rest."""
    texts = list(parts)
    more = f"; and {len(texts) - LISTED} more, in the table" if len(texts) > LISTED else ""
    return "; ".join(texts[:LISTED]) + more


def short(key: str) -> str:
    """Return a setting without its section: lr_g, attention.generator."""
    return key.partition(".")[2] or key


def shown(value: Any) -> str:
    """Return a value of the configuration as a reader writes it; a dash where there is none."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
