"""A Gaussian process."""

from optuna.samplers import BaseSampler, GPSampler

from sagan_bench.core.registry import SAMPLERS
from sagan_bench.experiments.tuning.samplers._base import STARTUP_TRIALS, Sampler


@SAMPLERS.register("gp")
class GP(Sampler):
    """A Gaussian process over all parameters together, by expected improvement."""

    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return it; random for its first trials."""
        return GPSampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
