"""Garbage, and when it is not looked for."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_expected() -> Iterator[None]:
    """Look for no garbage meanwhile: of what is read by the thousand, all is kept.

    Each look goes through all that was read before, which takes a third of the time.
    """
    was_looked_for = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_looked_for:
            gc.enable()
