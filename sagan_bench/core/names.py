"""Names that users give: of devices and kinds of data, and the closest of those that are known."""

import difflib
import re
from collections.abc import Sequence

MOST_NAMED = 30
"""Known names in a hint on an unknown one."""


def device_called(name: str) -> str:
    """Return the name of a device.  Raises ValueError if it is none that we use."""
    if name.partition(":")[0] == "mps":
        raise ValueError(
            "a Mac's GPU is not used, because torch computes wrong gradients there without an "
            "error (docs/gpu.md); use cpu"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return name


def kind_of(source: str) -> str:
    """Return what stands before the colon of a data set: ``folder`` of ``folder:PATH``."""
    return source.partition(":")[0]


def closest(word: str, known: Sequence[str], otherwise: str = "", *, most: int = MOST_NAMED) -> str:
    """Return a hint such as ``did you mean 'seed'?``, else the known words.

    Args:
        word: as it was given.
        known: what it may be; of dotted keys the last part is enough.
        otherwise: what else can be done, in words.
        most: known words that are named where none is close.
    """
    known = list(dict.fromkeys(known))
    last = {key: key.rpartition(".")[2] for key in known if "." in key}
    near = (
        [key for key in last if last[key] == word]
        or [key for key in known if key.lower() == word.lower()]
        or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        or [key for key in last if difflib.get_close_matches(word, [last[key]], cutoff=0.8)]
    )
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
        return f"{hint} Or {otherwise}" if otherwise else hint
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    hint = f"known are: {', '.join(known[:most])}{more}"
    return f"{hint}; or {otherwise}" if otherwise else hint
