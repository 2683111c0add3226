"""From a generator's sampler to scores for the record, under the protocol of a configuration."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.data.store import Split, Store, cache_root
from sagan_bench.evaluation.coherence import coherence
from sagan_bench.evaluation.extractors import Features, build_extractor, ensure_weights, extract
from sagan_bench.evaluation.metrics import (
    NonFiniteImages,
    Reference,
    Sample,
    Scores,
    reference,
    sample_images,
    score,
)
from sagan_bench.evaluation.protocol import EXTRACTORS, Protocol
from sagan_bench.runs.records import Score

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")


def check(config: RunConfig, store: Store) -> None:
    """Refuse before training what could not be scored after it.

    Raises:
        UserError: too few images for the metrics, no held-out images where they are the reference,
            or weights of the extractor that are missing or not the published ones.
    """
    evaluation = config.evaluation
    if config.run.eval_metrics == "rule" and store.manifest.kind != "twins":
        raise UserError(
            f"run.eval_metrics = rule: {store.manifest.kind} images follow no rule that could be "
            "checked; use all"
        )
    sizes = {evaluation.n_fake, *([config.run.eval_images] if config.run.eval_every else [])}
    for n_fake in sizes:
        protocol(config, store, "raw", 0, n_fake)
    classes = config.model.classes
    if evaluation.intra_class and not 0 < 2 * classes <= min(sizes):
        raise UserError(
            f"evaluation.intra_class needs two generated images of each class; there are {classes} "
            f"classes and {min(sizes)} images; raise evaluation.n_fake and run.eval_images, or "
            "leave it out"
        )
    ensure_weights(evaluation.extractor, _inception_weights(config))


def protocol(config: RunConfig, store: Store, weights: Weights, seed: int, n_fake: int) -> Protocol:
    """Return the protocol of one sample set.  Raises `UserError` as `check`."""
    evaluation, training = config.evaluation, config.training
    available = len(_splits(config, store)[0])
    return Protocol.fitted(
        **EXTRACTORS[evaluation.extractor],
        data=store.manifest.fingerprint(),
        split=evaluation.split,
        n_real=min(evaluation.n_real or available, available),
        n_fake=n_fake,
        sampling_seed=seed,
        z_law=_z_law(evaluation.truncation),
        label_law="balanced" if config.model.classes else "none",
        weights=weights,
        ema_decay=training.ema_decay if weights == "ema" else None,
        batchnorm=f"standing-{evaluation.bn_batches}x{training.batch_size}",
        isc_splits=evaluation.isc_splits,
        kid_subsets=evaluation.kid_subsets,
        kid_subset_size=evaluation.kid_subset_size,
        intra_class=evaluation.intra_class,
    )


def _z_law(truncation: float | None) -> str:
    law = str(Protocol.model_fields["z_law"].default)
    return law if truncation is None else f"{law}, |z| < {truncation:g}"


def _splits(config: RunConfig, store: Store) -> tuple[Split, Split | None]:
    """Return the real images to compare with, and those held out for the floor."""
    if config.evaluation.split == "train":
        return store.train, store.test
    if store.test is None:
        raise UserError("evaluation.split = test: these data have no held-out images; use train")
    return store.test, store.train


def _inception_weights(config: RunConfig) -> Path | None:
    given = config.run.inception_weights
    return Path(given) if given else None


class Scorer:
    """Scores the generators of one configuration; loads extractor and reference once.

    Args:
        config: resolved, without ``auto``.
        store: the real images.
        device: where features are computed.
        progress: called with the images finished and the images in all, of the call under way.
        context: of the processes that score together, which one this is.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        device: torch.device,
        progress: Callable[[int, int], None],
        context: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        self.config, self.store, self.progress = config, store, progress
        self.context = context
        self.real, self.held_out = _splits(config, store)
        self.device = device
        self._references: dict[int, Reference] = {}
        self._rule_floor: dict[str, float | None] | None = None
        self._done = self._total = 0

    def scores(
        self, samples: Mapping[Weights, Sample], *, step: int, n_fake: int, final: bool
    ) -> Iterator[Score]:
        """Yield a score for each sampler and sampling seed; on the main process alone, if shared.

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
        by_rule = not final and self.config.run.eval_metrics == "rule"
        first, stop = self.context.span(n_fake)
        self._done, self._total = 0, (2 - by_rule) * (stop - first) * len(seeds) * len(samples)
        for weights, sample in samples.items():
            for seed in seeds:
                how = protocol(self.config, self.store, weights, seed, n_fake)
                if self.context.is_main_process and not by_rule:
                    self._reference(how)
                images = self._sampled(sample, how)
                features = None if by_rule else self._features(images, how)
                images = self.context.gather(images, n_fake)
                if self.context.is_main_process:
                    scores = self._scored(images, features, how) if features else None
                    yield self._recorded(how, scores, images, step, final)

    def _sampled(self, sample: Sample, how: Protocol) -> Tensor:
        """Return this process's share of the images.  Raises `NonFiniteImages` on every process."""
        first, stop = self.context.span(how.n_fake)

        def ours(seed: int, start: int, end: int) -> Tensor:
            return sample(seed, first + start, first + end)

        images, bad = torch.empty(0), None
        try:
            size = self.config.training.batch_size
            images = sample_images(ours, stop - first, how.sampling_seed, size, self._advance)
        except NonFiniteImages as error:
            bad = first + error.index
        if (worst := self.context.all_reduce_min(bad)) is not None:
            raise NonFiniteImages(worst)
        return images

    def _features(self, images: Tensor, how: Protocol) -> Features:
        """Return the features of all images, of which each process makes its share."""
        made = extract(self.extractor, images, progress=self._advance)
        return Features(
            *(self.context.gather(part, how.n_fake) for part in (made.pool, made.logits))
        )

    def _scored(self, images: Tensor, features: Features, how: Protocol) -> Scores:
        real = self._reference(how)
        labels = None
        if self.config.evaluation.intra_class:
            real_labels = torch.from_numpy(self.real.labels[real.rows])
            labels = torch.arange(how.n_fake) % self.config.model.classes, real_labels
        return score(images, real, how, self.extractor, features=features, labels=labels)

    @cached_property
    def extractor(self) -> FeatureExtractorBase:
        """The network whose features are compared; loaded when first needed."""
        config = self.config
        return build_extractor(config.evaluation.extractor, self.device, _inception_weights(config))

    def _reference(self, how: Protocol) -> Reference:
        """Return the real side at the protocol's set sizes; features come from the cache."""
        if how.n_fake not in self._references:
            n_floor = min(self.config.evaluation.n_floor, how.n_fake)
            self._total += how.n_real + min(n_floor, len(self.held_out or ()))
            self._references[how.n_fake] = reference(
                self.real.images,
                self.held_out.images if self.held_out else None,
                how,
                self.extractor,
                cache_root() / "features",
                n_floor,
                self._advance,
            )
        return self._references[how.n_fake]

    def _recorded(
        self, how: Protocol, scores: Scores | None, images: Tensor, step: int, final: bool
    ) -> Score:
        rule: dict[str, float | None] = {}
        rule_floor: dict[str, float | None] = {}
        if self.store.manifest.kind == "twins":
            rule, rule_floor = coherence(images), self._rule_on_real()
        return Score(
            step=step,
            weights=how.weights,
            sampling_seed=how.sampling_seed,
            n_fake=how.n_fake,
            fingerprint=how.fingerprint(),
            protocol=how.model_dump(mode="json"),
            metrics=(scores.metrics if scores else {}) | rule,
            floor=(scores.floor if scores else {}) | rule_floor,
            warnings=scores.warnings if scores else (),
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
