"""Random search."""

from optuna.samplers import BaseSampler, RandomSampler

from sagan_bench.core.registry import SAMPLERS
from sagan_bench.experiments.tuning.samplers._base import Sampler


@SAMPLERS.register("random")
class Random(Sampler):
    """Bergstra and Bengio 2012: every value independently, whatever came before."""

    cites = ("bergstra2012random",)

    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return it."""
        return RandomSampler(seed=seed)
