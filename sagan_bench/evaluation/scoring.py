"""From a generator's sampler to scores for the record, under the protocol of a configuration."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sagan_bench.config import RunConfig
from sagan_bench.data.store import Store, cache_root
from sagan_bench.errors import UserError
from sagan_bench.evaluation.coherence import coherence
from sagan_bench.evaluation.extractors import build_extractor
from sagan_bench.evaluation.metrics import (
    Reference,
    Sample,
    Scores,
    reference,
    sample_images,
    score,
)
from sagan_bench.evaluation.protocol import EXTRACTORS, Protocol
from sagan_bench.records import Score

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")


class Scorer:
    """Scores the generators of one configuration; loads extractor and reference once.

    Args:
        config: resolved, without ``auto``.
        store: the real images.
        device: where features are computed.
        progress: called with the images finished and the images in all, of the call under way.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        device: torch.device,
        progress: Callable[[int, int], None],
    ) -> None:
        self.config, self.store, self.progress = config, store, progress
        self.real, self.held_out = store.train, store.test
        if config.evaluation.split == "test":
            if store.test is None:
                raise UserError("evaluation.split = test: these data have no held-out images")
            self.real, self.held_out = store.test, store.train
        weights = config.run.inception_weights
        self.extractor = build_extractor(
            config.evaluation.extractor, device, Path(weights) if weights else None
        )
        self._references: dict[int, Reference] = {}
        self._rule_floor: dict[str, float | None] | None = None
        self._done = self._total = 0

    def scores(
        self, samples: Mapping[Weights, Sample], *, step: int, n_fake: int, final: bool
    ) -> Iterator[Score]:
        """Yield a score for each sampler and each sampling seed.

        Args:
            samples: which weights -> their sampler.
            step: generator updates behind the weights.
            n_fake: generated images in each set, exactly.
            final: False for a score on the way, at a smaller n.

        Raises:
            NonFiniteImages: a generator made NaN or infinity.
            UserError: too few images for the protocol.
        """
        seeds = self.config.evaluation.sampling_seeds
        self._done, self._total = 0, 2 * n_fake * len(seeds) * len(samples)
        for weights, sample in samples.items():
            for seed in seeds:
                protocol = self.protocol(weights, seed, n_fake)
                real = self._reference(protocol)
                batch = self.config.training.batch_size
                images = sample_images(sample, n_fake, seed, batch, self._advance)
                scores = score(images, real, protocol, self.extractor, self._advance)
                yield self._recorded(scores, images, step, final)

    def protocol(self, weights: Weights, seed: int, n_fake: int) -> Protocol:
        """Return the protocol of one sample set."""
        evaluation, training = self.config.evaluation, self.config.training
        return Protocol.fitted(
            **EXTRACTORS[evaluation.extractor],
            data=self.store.manifest.fingerprint(),
            split=evaluation.split,
            n_real=evaluation.n_real or len(self.real),
            n_fake=n_fake,
            sampling_seed=seed,
            label_law="none",
            weights=weights,
            ema_decay=training.ema_decay if weights == "ema" else None,
            batchnorm=f"standing-{evaluation.bn_batches}x{training.batch_size}",
            isc_splits=evaluation.isc_splits,
            kid_subsets=evaluation.kid_subsets,
            kid_subset_size=evaluation.kid_subset_size,
        )

    def _reference(self, protocol: Protocol) -> Reference:
        """Return the real side at the protocol's set sizes; features come from the cache."""
        if protocol.n_fake not in self._references:
            n_floor = min(self.config.evaluation.n_floor, protocol.n_fake)
            self._total += protocol.n_real + min(n_floor, len(self.held_out or ()))
            self._references[protocol.n_fake] = reference(
                self.real.images,
                self.held_out.images if self.held_out else None,
                protocol,
                self.extractor,
                cache_root() / "features",
                n_floor,
                self._advance,
            )
        return self._references[protocol.n_fake]

    def _recorded(self, scores: Scores, images: Tensor, step: int, final: bool) -> Score:
        protocol, rule, rule_floor = scores.protocol, {}, {}
        if self.store.manifest.kind == "twins":
            rule, rule_floor = coherence(images), self._rule_on_real()
        return Score(
            step=step,
            weights=protocol.weights,
            sampling_seed=protocol.sampling_seed,
            n_fake=protocol.n_fake,
            fingerprint=scores.fingerprint,
            protocol=protocol.model_dump(mode="json"),
            metrics=scores.metrics | rule,
            floor=scores.floor | rule_floor,
            warnings=scores.warnings,
            final=final,
        )

    def _rule_on_real(self) -> dict[str, float | None]:
        """Return what held-out real images score by the rule that made them."""
        if self._rule_floor is None and self.held_out:
            held_out = self.held_out.images[: self.config.evaluation.n_floor]
            self._rule_floor = coherence(torch.from_numpy(held_out.copy()))
        return self._rule_floor or {}

    def _advance(self, images: int) -> None:
        self._done += images
        self.progress(self._done, self._total)
