"""Seeds as users write them, of training and of sampling alike: ``3``, ``0-4``, ``0,2,7-9``."""

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from sagan_bench.config.limits import MOST_WHOLE

MOST_SEEDS = 10_000
AGAIN = "the command once for each: for s in {each}; do ... --seed $s; done"
"""What to do for several seeds where a command takes one; ``each`` are those that were given."""
MOST_NAMED = 5
"""Of the seeds of a range in a message."""
ONE = f"expected a whole number from 0 to {MOST_WHOLE}"
_PART = re.compile(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?")


def several(given: Any) -> Any:
    """Return the seeds in a text, in the order given; what is no text and no number stays.

    Raises:
        ValueError: the text says no seeds, one twice, or more than a study could run.
    """
    if isinstance(given, str):
        return _read(given)
    if isinstance(given, Sequence):
        if not all(map(_is_whole, given)):
            raise ValueError('expected whole numbers in a list of seeds; ranges are a text: "0-4"')
        return given
    return (given,) if _is_whole(given) else given


def single(given: Any, for_several: str = f"ablate --seeds {{given}}, or {AGAIN}") -> Any:
    """Return the seed in a text; what is no text and no list stays.

    Args:
        given: as the user wrote it.
        for_several: what is for several seeds, with places for those ``given`` and for ``each``.

    Raises:
        ValueError: the text says none; or there are several, and what is for that.
    """
    seeds = given
    if isinstance(given, str):
        try:
            seeds = _read(given)
        except ValueError:
            raise ValueError(ONE) from None
    if isinstance(seeds, Sequence):
        if len(seeds) != 1:
            raise ValueError(f"one seed is meant here; for several: {_filled(for_several, seeds)}")
        seeds = seeds[0]
    if isinstance(seeds, bool | float):
        raise ValueError(ONE)
    return seeds


def _is_whole(given: Any) -> bool:
    return isinstance(given, Integral) and not isinstance(given, bool)


def _filled(advice: str, seeds: Sequence[Any]) -> str:
    """Return an advice about these seeds; about some where there are none, or many."""
    seeds = [seed for at, seed in enumerate(seeds) if seed not in seeds[:at]] or (0, 1, 2)
    given, each = (mark.join(map(str, seeds)) for mark in (",", " "))
    first, n = seeds[0], len(seeds)
    if n > 2 and isinstance(first, int) and list(seeds) == list(range(first, first + n)):
        given = f"{first}-{first + n - 1}"
        each = each if n <= MOST_NAMED else f"$(seq {first} {first + n - 1})"
    return advice.format(given=given, each=each)


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
