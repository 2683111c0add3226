"""How long work tells how far it is, whatever it is; what it calls may raise to break it off."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how much is done and how much there is in all: images, or bytes of a file."""


def unwatched(done: int, total: int) -> None:
    """Tell nobody."""
