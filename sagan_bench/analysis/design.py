"""How a study grows until it is conclusive: when it is looked at, and what a look costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from pydantic import Field

from sagan_bench.config.section import Section

Cell = tuple[str, int]
"""A variant and a training seed."""
FIRST_LOOKS = (5, 8, 12, 16, 20)
GROWTH = 1.3
"""Of the looks that follow."""
MOST_LOOKED = 1_000
"""Seeds a group at which a study that grows may end."""


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


class UntilConclusive(Section):
    """Seeds are added until each pair has its answer, at looks whose prices are fixed beforehand.

    ``horizon`` is what prices are by: the seeds a group for which the study began.
    """

    max_seeds: int = Field(20, ge=FIRST_LOOKS[0], le=MOST_LOOKED)
    futility: bool = True
    horizon: int | None = Field(None, ge=FIRST_LOOKS[0], le=MOST_LOOKED)

    def design(self, pairs: int, paired: bool) -> Design:
        """Return the design of a study of so many pairs."""
        horizon = self.horizon or self.max_seeds
        return Design(pairs, horizon, self.max_seeds, self.futility, paired)

    def further(self, requested: "UntilConclusive | None") -> "UntilConclusive":
        """Return how a begun study grows from now on: further, or also where there is little hope.

        Args:
            requested: now; null goes on as it was.
        """
        if requested is None:
            return self
        said = requested.max_seeds if "max_seeds" in requested.model_fields_set else 0
        return UntilConclusive(
            max_seeds=max(self.max_seeds, said),
            futility=self.futility and requested.futility,
            horizon=self.horizon or self.max_seeds,
        )
