"""Runs that may be put side by side, and their values."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from sagan_bench.analysis.question import Collapse
from sagan_bench.analysis.statistics import mean_of_all
from sagan_bench.analysis.verdicts import Lost
from sagan_bench.config.diff import Difference, differences
from sagan_bench.config.schema import Weights
from sagan_bench.core.registry import ATTENTION, METRICS
from sagan_bench.evaluation.metrics import of_key
from sagan_bench.evaluation.protocol import AnyProtocol, Protocol
from sagan_bench.runs.probe import Probe
from sagan_bench.runs.program import PROGRAM, Better, Program
from sagan_bench.runs.records import Score, Status
from sagan_bench.runs.run import Run, extractor_named, family, of_several_sources

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSet:
    """Runs that may be compared: one configuration a variant, one protocol, one budget.

    Attributes:
        attempted: finished, diverged or failed; by seed.
        begun: still to be finished.
        unread: how many could not be read.
        unplanned: runs that the plan does not name, which are left out.
        collapse: what counts as diverged though it finished.
        probes: run -> what its finished weights depend on; None is a file that cannot be read.
        protocols: of the final scores that count, of averaged weights: sampling seed -> protocol.
        other_protocols: likewise, of extractors that metrics name: extractor -> seed -> protocol.
    """

    attempted: tuple[Run, ...]
    begun: tuple[Run, ...]
    unread: int
    protocols: Mapping[int, AnyProtocol]
    other_protocols: Mapping[str, Mapping[int, AnyProtocol]] = field(default_factory=dict)
    unplanned: tuple[Path, ...] = ()
    collapse: Collapse | None = None
    probes: Mapping[Path, Probe | None] = field(default_factory=dict)

    @property
    def unfinished(self) -> tuple[Path, ...]:
        """The paths of those still to be finished."""
        return tuple(run.path for run in self.begun)

    @cached_property
    def variants(self) -> dict[str, list[Run]]:
        """The runs of each variant."""
        by_variant: dict[str, list[Run]] = {}
        for run in self.attempted:
            by_variant.setdefault(run.variant, []).append(run)
        return by_variant

    @property
    def steps(self) -> int:
        """The budget in generator updates; 1 where another program did not say it."""
        return (of_known_length(self.attempted) or self.attempted)[0].record.steps

    @property
    def learning_rates(self) -> list[tuple[float, float]]:
        """The distinct ones, of G and of D; none where they are not known."""
        return list(dict.fromkeys(filter(None, (run.learning_rates for run in self.attempted))))

    def shared_device(self, variant: str) -> bool:
        """Return whether runs of a variant shared a device, so that times tell of each other."""
        return any(run.shared_device for run in self.variants[variant])

    def devices(self, variant: str) -> set[str]:
        """Return the kinds of device that runs of a variant finished on."""
        made_on = (run.record.environment for run in self.variants[variant] if not run.lost)
        return {on.device_name or on.cpu or on.device for on in made_on}

    def flops_per_step(self, variant: str) -> int:
        """Return what a step of a variant computes; 0 where no run of it knows."""
        known = (run.record.cost.flops_per_step for run in self.variants[variant])
        return next(filter(None, known), 0)

    @property
    def program(self) -> Program | None:
        """What made the runs, with the values of the first; None if we did."""
        return self.attempted[0].program if self.attempted else None

    def lacks_attention(self, variant: str) -> bool:
        """Return whether a variant is known to have no block that attends."""
        attention = self.variants[variant][0].attention
        if attention is None:
            return False
        placed = attention.generator or attention.discriminator
        return not (placed and ATTENTION[attention.kind].is_attention)

    @property
    def has_settings(self) -> bool:
        """Whether it is known in what variants differ; a table does not say."""
        return any(run.program is None or run.program.values for run in self.attempted)

    def differences(self, baseline: str, variant: str) -> list[Difference]:
        """Return (key, in the baseline, in the variant) of all that changes results."""
        here, there = (self.variants[name][0].settings for name in (baseline, variant))
        return differences(here, there)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that every finished run has."""
        names = [set(self.values(run)) for run in self.attempted if not run.lost]
        return sorted(set.intersection(*names)) if names else []

    def label(self, metric: str) -> str:
        """Return the metric's name for readers."""
        protocols = self._protocols(self._owner(metric))
        return next(iter(protocols.values())).label(metric) if protocols else metric

    @cached_property
    def better(self) -> dict[str, Better]:
        """Which values are, of every metric of which that is known: ours keep their own."""
        theirs = self.program.better if self.program else {}
        return {**theirs, **{name: metric.better for name, metric in METRICS.items()}}

    def _owner(self, metric: str) -> str | None:
        """Return the extractor that a metric names, if it names another than the main one.

        What is no metric of ours was given by another program, whose pictures we may have scored.
        """
        own = extractor_named(metric) if of_key(metric) else PROGRAM
        return own if own in self.other_protocols else None

    def _protocols(self, owner: str | None) -> Mapping[int, AnyProtocol]:
        return self.protocols if owner is None else self.other_protocols[owner]

    def outcomes(self, value: Callable[[Run], float | None]) -> dict[str, dict[int, float | Lost]]:
        """Return variant -> seed -> value, or why there is none."""
        return {
            variant: {run.seed: self.outcome(run, value) for run in runs}
            for variant, runs in self.variants.items()
        }

    def outcome(self, run: Run, value: Callable[[Run], float | None]) -> float | Lost:
        """Return a value of a run that is over, or why there is none."""
        if run.lost:
            return Lost.DIVERGED if run.record.status == Status.DIVERGED else Lost.FAILED
        if self.has_collapsed(run):
            return Lost.DIVERGED
        figure = value(run)
        return Lost.NO_FIGURE if figure is None else figure

    def has_collapsed(self, run: Run) -> bool:
        """Return whether a run that finished counts as diverged, as was declared."""
        if self.collapse is None or run.lost:
            return False
        value = self.value(run, self.collapse.metric)
        return value is not None and self.collapse.has(value)

    def _scores(self, run: Run, owner: str | None, weights: Weights) -> list[Score]:
        """Return the final scores that count: of one protocol for all runs, at all its seeds."""
        alike = self._alike(run, owner, weights)
        return [score for score in alike if score.sampling_seed in self._protocols(owner)]

    def _alike(self, run: Run, owner: str | None, weights: Weights) -> list[Score]:
        """Return the final scores that differ from those that count by sampling seed at most."""
        return run.final(weights, self._families[owner])

    def was_scored(self, metric: str, weights: Weights) -> bool:
        """Return whether any run has final scores of these weights that count."""
        return any(self._scores(run, self._owner(metric), weights) for run in self.attempted)

    def value(self, run: Run, metric: str, weights: Weights = "ema") -> float | None:
        """Return a run's final value: the mean over sampling seeds, None if one has none."""
        scores = self._scores(run, self._owner(metric), weights)
        return mean_of_all(score.metrics.get(metric) for score in scores)

    def samples(self, run: Run, metric: str) -> list[float]:
        """Return a run's final values by sampling seed, of seeds that do not count too."""
        alike = self._alike(run, self._owner(metric), "ema")
        values = (score.metrics.get(metric) for score in alike)
        return [value for value in values if value is not None]

    def sampling_seeds(self, metric: str) -> int:
        """Return how many sampling seeds each run's value of a metric is the mean of."""
        return len(self._protocols(self._owner(metric)))

    def share_of(self, metric: str) -> int | None:
        """Return the images of which a metric's values are shares; None where they are none."""
        if metric not in METRICS or not METRICS[metric].is_share:
            return None
        protocols = self._protocols(self._owner(metric)).values()
        return next((how.n_fake for how in protocols if isinstance(how, Protocol)), None)

    def values(self, run: Run) -> dict[str, float | None]:
        """Return metric -> final value of averaged weights."""
        values: dict[str, float | None] = {}
        for owner in (None, *self.other_protocols):
            scores = self._scores(run, owner, "ema")
            names = dict.fromkeys(name for score in scores for name in score.metrics)
            theirs = (name for name in names if self._owner(name) == owner)
            for name in (name for name in theirs if name not in self._unlike):
                values[name] = mean_of_all(score.metrics.get(name) for score in scores)
        return values

    @cached_property
    def _unlike(self) -> set[str]:
        """Metrics that are left out: the runs have them from files of one's own that differ."""
        unlike = of_several_sources(self.attempted)
        for name in sorted(unlike):
            _log.warning("%s is left out: the runs have it from files that differ", name)
        return unlike

    @cached_property
    def _families(self) -> dict[str | None, set[str]]:
        return {
            owner: {family(p.model_dump(mode="json")) for p in self._protocols(owner).values()}
            for owner in (None, *self.other_protocols)
        }

    def at_the_end(self, metric: str, weights: Weights = "ema") -> Callable[[Run], float | None]:
        """Return what gives a run's final value."""
        return partial(self.value, metric=metric, weights=weights)


def of_known_length(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose steps are those that they were to take.

    Another program says in the end how many it took, and of a lost run that is fewer.
    """
    return [run for run in runs if not (run.program and run.lost)]
