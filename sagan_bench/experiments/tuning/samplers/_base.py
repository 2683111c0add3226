"""What a sampler is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from optuna.samplers import BaseSampler

STARTUP_TRIALS = 10
"""Trials at random before a model of them proposes any."""


class Sampler(ABC):
    """Makes what proposes the values of trials."""

    name: ClassVar[str]
    cites: ClassVar[tuple[str, ...]] = ()
    """What a paper cites that uses it: keys of ``report/references.bib``, or BibTeX entries."""

    @abstractmethod
    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return Optuna's sampler.

        Args:
            seed: another each time that a search goes on, so that it proposes nothing again.
            sequence: the index of the search, for a sampler along one sequence of points.
        """
