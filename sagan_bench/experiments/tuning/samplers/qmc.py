"""Quasi-random search."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler

from sagan_bench.core.registry import SAMPLERS
from sagan_bench.experiments.tuning.samplers._base import Sampler


@SAMPLERS.register("qmc")
class QMC(Sampler):
    """One scrambled Sobol sequence a search, which a search that goes on follows further."""

    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return it; what the sequence cannot place, a choice, is drawn by ``seed``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # so it is marked since Optuna 3
            return QMCSampler(
                scramble=True,
                seed=sequence,
                independent_sampler=RandomSampler(seed=seed),
                warn_independent_sampling=False,
            )
