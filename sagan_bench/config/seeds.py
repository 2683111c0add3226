"""Seeds as users write them, of training and of sampling alike: ``3``, ``0-4``, ``0,2,7-9``."""

import re
from collections.abc import Sequence
from typing import Any

from sagan_bench.config.limits import MOST_WHOLE

MOST_SEEDS = 10_000
AGAIN = "the command once for each: for s in 0 1 2; do ... --seed $s; done"
"""What to do for several seeds where a command takes one."""
_PART = re.compile(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?")


def several(given: Any) -> Any:
    """Return the seeds in a text, in the order given; what is no text and no number stays.

    Raises:
        ValueError: the text says no seeds, one twice, or more than a study could run.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    return _read(given) if isinstance(given, str) else given


def single(given: Any, for_several: str = f"ablate --seeds 0-4, or {AGAIN}") -> Any:
    """Return the seed in a text; what is no text and no list stays.

    Raises:
        ValueError: the text says none; or there are several, and what is for that.
    """
    seeds = given
    if isinstance(given, str):
        try:
            seeds = _read(given)
        except ValueError:
            raise ValueError("expected a whole number from 0") from None
    if isinstance(seeds, Sequence):
        if len(seeds) != 1:
            raise ValueError(f"one seed is meant here; for several: {for_several}")
        return seeds[0]
    return seeds


def _read(text: str) -> tuple[int, ...]:
    seeds: list[int] = []
    for part in text.split(","):
        span = _PART.fullmatch(part)
        if not span:
            raise ValueError("expected seeds from 0 and ranges of them, e.g. 3, 0-4 or 0,2,5-7")
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first:
            raise ValueError(f"{part.strip()} goes down; give {last}-{first}")
        if last > MOST_WHOLE or len(seeds) + last - first >= MOST_SEEDS:
            raise ValueError(f"at most {MOST_SEEDS:,} seeds, each up to {MOST_WHOLE} (63 bits)")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected different seeds, e.g. 0-4")
    return tuple(seeds)
