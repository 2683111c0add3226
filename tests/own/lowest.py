"""A sampler: it proposes the least of everything."""

from typing import Any

from optuna.samplers import BaseSampler

from sagan_bench.core.registry import SAMPLERS


class Least(BaseSampler):
    """The first of choices, the low end of ranges."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Return nothing: parameters are independent."""
        return {}

    def sample_relative(self, study: Any, trial: Any, space: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, among: Any) -> Any:
        """Return the least."""
        return among.choices[0] if hasattr(among, "choices") else among.low


@SAMPLERS.register("lowest")
class Lowest:
    """Makes it, whatever the seed."""

    def make(self, seed: int, sequence: int) -> BaseSampler:
        """Return it."""
        return Least()
