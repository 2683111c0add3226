"""What is measured of images that were made under an intervention, beside the untouched ones."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan_bench.config.layers import override, parse_set
from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import METRICS
from sagan_bench.data.pixels import normalise
from sagan_bench.data.store import Manifest
from sagan_bench.evaluation.conditions import protocol
from sagan_bench.evaluation.measuring import measure
from sagan_bench.evaluation.metrics import Evidence, chosen, of_key
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.runs.probe import Outcome
from sagan_bench.session.probing._running import Made

ALL = "all"
"""Of the conditions of a rule, that all are met."""
LEVEL = 1
"""A pixel has changed if a channel is off by more levels of 255."""


def measuring(config: RunConfig, metrics: Collection[str], kind: str) -> RunConfig:
    """Return a configuration whose scores have these metrics too, of a kind of data.

    Raises:
        UserError: there is no such metric, or these images have none.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"--metrics {name}: {closest(name, list(METRICS))}")
        if METRICS[name].wanted(config.evaluation.model_dump(), kind):
            continue
        key, value = parse_set(METRICS[name].switch())
        if not key.startswith("evaluation."):
            raise UserError(f"--metrics {name}: it is measured with {key} = {value} only")
        more = [*config.evaluation.metrics, *value] if isinstance(value, list) else value
        config = override(config, {key: ("--metrics", more)})
    return config


class Measuring:
    """Measures images by the metrics that need no extractor, and by others that were asked for.

    Args:
        config: of the run, from `measuring`.
        manifest: of its images.
        weights: which of G's made the images.
        images: how many.
        asked: metrics beyond those without an extractor.
        scorer: for those of ``asked`` that have one; None where none has.
    """

    def __init__(
        self,
        config: RunConfig,
        manifest: Manifest,
        weights: Weights,
        images: int,
        asked: Collection[str],
        scorer: Scorer | None,
    ) -> None:
        self.asked, self.scorer, self.weights = asked, scorer, weights
        self.kind = manifest.kind
        self.by_pixels = chosen(config, self.kind).get(None, [])
        seed = config.evaluation.sampling_seeds[0]
        self.protocol = protocol(config, manifest, weights, seed, images)
        self.before: Mapping[str, NDArray[np.bool_]] = {}
        self.untouched = torch.empty(0)

    def begin(self, made: Made) -> Outcome:
        """Take the untouched images, and return what is measured of them."""
        self.untouched = made.values
        self.before = self._conditions(Evidence(made.values, self.protocol))
        return self.outcome(made)

    def outcome(self, made: Made) -> Outcome:
        """Return what is measured of images, uint8 (n, 3, S, S)."""
        if not made.finite:
            return Outcome(reason="G made NaN or infinity")
        evidence, before = Evidence(made.values, self.protocol), self.before
        met, metrics = self._conditions(evidence), measure(evidence, self.by_pixels)
        off = (made.values.short() - self.untouched.short()).abs() > LEVEL
        return Outcome(
            metrics=metrics | self._by_features(made.values),
            changed=float(off.any(dim=1).double().mean()),
            breaks={name: float((before[name] & ~met[name]).mean()) for name in met},
            mends={name: float((met[name] & ~before[name]).mean()) for name in met},
        )

    def _conditions(self, evidence: Evidence) -> dict[str, NDArray[np.bool_]]:
        met: dict[str, NDArray[np.bool_]] = {}
        for metric in self.by_pixels:
            met |= metric.conditions(evidence)
        return met | ({ALL: np.logical_and.reduce(list(met.values()))} if met else {})

    def _by_features(self, images: Tensor) -> dict[str, float | None]:
        if self.scorer is None:
            return {}

        def sample(seed: int, start: int, stop: int) -> Tensor:
            return normalise(images[start:stop])

        figures: dict[str, float | None] = {}
        drawn = {self.weights: sample}
        for score in self.scorer.scores(drawn, step=0, n_fake=len(images), final=False):
            for key, value in score.metrics.items():
                metric = of_key(key)
                if metric and metric.name in self.asked and metric.extractor is not None:
                    figures[key] = value
        return figures


def ranking(real: Tensor, fake: Tensor) -> float:
    """Return the share of pairs in which the real image has the larger logit; equal ones half.

    real: (n,), fake: (m,) logits.  It is the area under D's receiver operating characteristic: 1
    where D ranks every real image above every generated one, 1/2 where it cannot tell.
    """
    above = real[:, None] - fake
    return float(((above > 0).double() + (above == 0).double() / 2).mean())
