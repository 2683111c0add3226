"""The Tree-structured Parzen Estimator."""

from optuna.samplers import BaseSampler, TPESampler

from sagan_bench.core.registry import SAMPLERS
from sagan_bench.experiments.tuning.samplers._base import STARTUP_TRIALS, Sampler


@SAMPLERS.register("tpe")
class TPE(Sampler):
    """Bergstra et al. 2011: densities of good and of bad values, each parameter by itself."""

    cites = ("bergstra2011algorithms",)

    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return it; random for its first trials."""
        return TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
