"""How a study grows until it is conclusive: when it is looked at, and what a look costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

Cell = tuple[str, int]
"""A variant and a training seed."""
FIRST_LOOKS = (5, 8, 12, 16, 20)
GROWTH = 1.3
"""Of the looks that follow."""


def looks(horizon: int, most: int) -> list[int]:
    """Return the seeds a group after which a study is looked at, up to ``most``.

    Args:
        horizon: seeds that it was begun for: a look too.
        most: the last.
    """
    beyond = takewhile(lambda n: n <= most, _beyond(FIRST_LOOKS[-1]))
    return sorted(n for n in {*FIRST_LOOKS, horizon, *beyond} if n <= most)


def _beyond(n: int) -> Iterator[int]:
    while True:
        n = round(GROWTH * n)
        yield n


@dataclass(frozen=True)
class Design:
    """What is fixed when such a study begins.

    Attributes:
        pairs: how many are compared; they share the error equally, also when some have stopped.
        horizon: seeds a group that it was begun for; its prices are by it.
        most: seeds a group at which it ends; may be raised, which changes no price.
        futility: stop pairs that will hardly be decided by the horizon.
        paired: compare runs of the same seed.
    """

    pairs: int
    horizon: int
    most: int
    futility: bool = True
    paired: bool = False

    @property
    def looks(self) -> list[int]:
        """Seeds a group after which there is a look."""
        return looks(self.horizon, self.most)

    def price(self, n: int) -> float:
        """Return the level of the look at n seeds."""
        from sagan_bench.analysis.prices import prices  # scipy

        return prices(self.pairs, self.horizon, self.most)[n]
