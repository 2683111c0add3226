"""A run read back: its record, and what may be read off it."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from sagan_bench.config.diff import results
from sagan_bench.config.schema import AttentionConfig, RunConfig, Weights
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.core.stored import fitting
from sagan_bench.runs.program import Program, ProgramProtocol, program_of
from sagan_bench.runs.records import RECORD, Record, Score

Curve = list[tuple[int, float]]
"""(step, value), by step."""


def family(protocol: Mapping[str, Any]) -> str:
    """Return a protocol but for the sampling seed and whose weights were scored, as JSON.

    ``intra_class`` is younger than protocols, and the same where it is absent or false.
    """
    ignored = {"sampling_seed", "weights", "ema_decay"}
    kept = {key: value for key, value in protocol.items() if key not in ignored}
    return json.dumps({"intra_class": False, **kept}, sort_keys=True)


def by_protocol(scores: Iterable[Score]) -> list[list[Score]]:
    """Return scores that may stand together: of one step, protocols but for weights and seed."""
    groups: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.step, family(score.protocol)), []).append(score)
    return list(groups.values())


def extractor_named(metric: str) -> str | None:
    """Return the extractor by which alone a metric is measured; None where it is the run's own."""
    own = METRICS[metric].extractor if metric in METRICS else None
    return own if own in EXTRACTORS else None


def of_several_sources(runs: "Iterable[Run]") -> set[str]:
    """Return the metrics of one's own that runs had from files that differ."""
    sources: dict[str, set[str]] = defaultdict(set)
    for run in (run for run in runs if not run.program):
        for described in run.config.own.values():
            for key in described["components"]:
                sources[key].add(described["sha256"])
    several = (key.partition("/") for key, of_it in sources.items() if len(of_it) > 1)
    return {name for kind, _, name in several if kind == "METRICS"}


@dataclass(frozen=True)
class Run:
    """A run that was attempted: it has an outcome, or diverged or failed."""

    path: Path
    record: Record
    label: str = ""

    @property
    def variant(self) -> str:
        """The name of its variant, or what tells it from another of that name."""
        return self.label or self.record.variant

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.record.seed

    @property
    def lost(self) -> bool:
        """Whether it diverged or failed."""
        return self.record.status.is_lost

    @cached_property
    def program(self) -> Program | None:
        """What made it; None if we did.  Raises `UserError` if its record is damaged there."""
        return fitting(lambda: program_of(self.record), self.path / RECORD)

    @cached_property
    def config(self) -> RunConfig:
        """Its configuration.

        Raises:
            UserError: its record is damaged there, or another program made it.
        """
        if self.program:
            raise UserError(
                f"{self.path} was made by another program ({self.program.source}), which alone can "
                "go on with it; its figures are compared by `compare`"
            )
        extensions.recall(self.record.config.get("own"))
        return fitting(lambda: RunConfig.model_validate(self.record.config), self.path / RECORD)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """By dotted key all but the seed that changes what it computes.  Raises as `config`."""
        return self.program.settings if self.program else results(self.config)

    @property
    def attention(self) -> AttentionConfig | None:
        """What stands where in its networks; None if another program made it."""
        return None if self.program else self.config.model.attention

    @property
    def learning_rates(self) -> tuple[float, float] | None:
        """Of G and of D; None if another program made it."""
        return None if self.program else self.config.training.learning_rates

    @property
    def sampling_seeds(self) -> tuple[int, ...]:
        """Those that it was to be scored with when it began.  Raises as `config`."""
        if self.program:
            return (ProgramProtocol.sampling_seed,)
        return self.config.evaluation.sampling_seeds

    @property
    def shared_device(self) -> bool:
        """Whether runs shared its device, so that their seconds tell of each other."""
        return (self.program or self.config.run).cells_on_device > 1

    @cached_property
    def scores(self) -> list[tuple[str, Score]]:
        """Its scores, each with the family of its protocol."""
        return [(family(score.protocol), score) for score in self.record.scores]

    def final(self, weights: Weights, families: Collection[str] | None = None) -> list[Score]:
        """Return the scores of its end; of these families of protocols, if they are given."""
        step = self.record.step
        return [
            score
            for its_family, score in self.scores
            if score.final and score.step == step and score.weights == weights
            and (families is None or its_family in families)
        ]  # fmt: skip

    def first_scored(self, metric: str) -> list[Score]:
        """Return the final scores of averaged weights by the protocol that a metric has first."""
        own = extractor_named(metric)
        scores = [s for s in self.final("ema") if own in (None, s.protocol.get("extractor"))]
        return [s for s in scores if family(s.protocol) == family(scores[0].protocol)]

    def curve(self, metric: str) -> Curve:
        """Return the scores on the way; empty if there are none of this metric.

        All are of averaged weights and of as many images; sampling seeds are averaged.
        """
        return self._curves.get(metric, [])

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        """The scores on the way by metric."""
        by_step: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for score in self.record.scores:
            if score.final or score.weights != "ema":
                continue
            for metric, value in score.metrics.items():
                if value is not None:
                    by_step[metric][score.step].append(value)
        return {
            metric: [(step, fmean(values)) for step, values in sorted(of.items())]
            for metric, of in by_step.items()
        }
