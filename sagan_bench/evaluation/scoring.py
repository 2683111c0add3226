"""From a generator's sampler to scores for the record, under the protocol of a configuration."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core import system
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data.store import Store, cache_root
from sagan_bench.evaluation import foreseeing
from sagan_bench.evaluation.conditions import protocol, splits
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.features import Features, extract
from sagan_bench.evaluation.measuring import default_metrics, measure
from sagan_bench.evaluation.metrics import Evidence, Metric, chosen
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.reference import Reference, reference
from sagan_bench.evaluation.sampling import NonFiniteImages, Sample, sample_images
from sagan_bench.runs.records import Score


def score(
    images: Tensor,
    real: Reference,
    protocol: Protocol,
    extractor: Extractor,
    metrics: Sequence[Metric] | None = None,
    *,
    features: Features | None = None,
    labels: tuple[Tensor, Tensor] | None = None,
) -> Score:
    """Return the score of generated ``images``, uint8 (n_fake, 3, S, S), under ``protocol``.

    Args:
        images: the generated ones.
        real: the real side.
        protocol: how they are scored.
        extractor: the protocol's.
        metrics: all by the extractor; by default those of every score.
        features: of the generated images, if they have been made already.
        labels: classes of the generated and of the reference's images, if there are any.

    Raises:
        ValueError: images, reference or extractor are not those of the protocol.
    """
    protocol.require(extractor=extractor.name, n_fake=len(images), n_real=len(real.pool))
    metrics = metrics or default_metrics()
    features = features or extract(extractor, images)
    figures = measure(Evidence(images, protocol, features, real.pool, labels), metrics)
    warnings = [text for metric in metrics for text in metric.doubts(protocol)]
    warnings += _doubts(images, figures, real, protocol, metrics)
    return _recorded(protocol, figures, real.floor, warnings)


def _recorded(
    protocol: Protocol,
    metrics: Mapping[str, float | None],
    floor: Mapping[str, float | None],
    warnings: Sequence[str] = (),
) -> Score:
    return Score(
        step=0,
        weights=protocol.weights,
        sampling_seed=protocol.sampling_seed,
        n_fake=protocol.n_fake,
        fingerprint=protocol.fingerprint(),
        protocol=protocol.model_dump(mode="json"),
        metrics=dict(metrics),
        floor=dict(floor),
        warnings=tuple(warnings),
        final=True,
    )


def _doubts(
    images: Tensor,
    figures: Mapping[str, float | None],
    real: Reference,
    protocol: Protocol,
    metrics: Sequence[Metric],
) -> Iterator[str]:
    """Yield what these images and this reference give reason to doubt."""
    yield from _undefined(figures, protocol)
    distinct = len({hashlib.blake2b(image.tobytes()).digest() for image in images.numpy()})
    if distinct < len(images):
        yield f"collapse: only {distinct} of {len(images)} generated images are distinct"
    if not real.floor:
        yield "no held-out images, hence no real-against-real floor"
    elif real.n_floor != protocol.n_fake:
        yield (
            f"the floor is of {real.n_floor} held-out images, not {protocol.n_fake}: "
            f"the bias of {protocol.label(metrics[0].name)} differs"
        )


def _undefined(figures: Mapping[str, float | None], protocol: Protocol) -> Iterator[str]:
    for key, value in figures.items():
        if value is None:
            yield f"{protocol.label(key)} is undefined for these images"


class Scorer:
    """Scores the generators of one configuration; loads extractors and references once.

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
        self.device, self.context = device, context
        self.real, self.held_out = splits(config, store)
        groups = chosen(config, store.manifest.kind)
        self.by_pixels = groups.get(None, [])
        self.by_features = {name: group for name, group in groups.items() if name}
        self._extractors: dict[str, Extractor] = {}
        self._references: dict[tuple[str, int], Reference] = {}
        self._floor_by_pixels: dict[str, float | None] | None = None
        self._done, self._total = Fraction(0), 0
        self._of_a_pass = self._of_a_real = Fraction(1)
        """What an image of a pass, and a real one, count for."""

    def scores(
        self, samples: Mapping[Weights, Sample], *, step: int, n_fake: int, final: bool
    ) -> Iterator[Score]:
        """Yield a score for each sampler, sampling seed and extractor; on the main process alone.

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
        self._count(stop - first, n_fake, len(seeds) * len(samples), by_rule=by_rule)
        for weights, sample in samples.items():
            for seed in seeds:
                protocols = [
                    protocol(self.config, self.store.manifest, weights, seed, n_fake, extractor)
                    for extractor in self.by_features
                ]
                for made in self._of_set(sample, protocols, by_rule=by_rule, final=final):
                    yield made.model_copy(update={"step": step, "final": final})

    def _count(self, ours: int, n_fake: int, sets: int, *, by_rule: bool) -> None:
        """Begin to count the images of a call, each once, as `foreseeing.ahead` does.

        A generated image goes through several passes, a real one through each extractor that has
        not seen it yet, and of the images of many processes this one makes ``ours``.
        """
        extractors = [] if by_rule else [*self.by_features]
        new = [self._unseen(name, n_fake) for name in extractors]
        real = max(new, default=0)
        self._done, self._total = Fraction(0), sets * n_fake + real
        self._of_a_pass = Fraction(n_fake, max(ours, 1) * (1 + len(extractors)))
        self._of_a_real = Fraction(real, max(sum(new), 1))

    def _unseen(self, extractor: str, n_fake: int) -> int:
        """Return the real images whose features this process still has to compute."""
        if not self.context.is_main_process or (extractor, n_fake) in self._references:
            return 0
        of = self.config, self.store.manifest, self.where, extractor, n_fake
        return foreseeing.unseen(*of)

    def _of_set(
        self, sample: Sample, protocols: Sequence[Protocol], *, by_rule: bool, final: bool
    ) -> list[Score]:
        """Return the scores of one set of generated images; none but on the main process.

        What an image of the last set takes is noted, to foresee what others will.
        """
        is_main, n_fake = self.context.is_main_process, protocols[0].n_fake
        for how in protocols if is_main and not by_rule else ():
            self._reference(how)
        began = time.perf_counter()
        images, seconds = self._sampled(sample, protocols[0]), dict[str, float]()
        features = list[Features]()
        for how in () if by_rule else protocols:
            started = time.perf_counter()
            features.append(self._features(images, how))
            seconds[how.extractor] = time.perf_counter() - started
        images = self.context.gather(images, n_fake)
        scores = [*self._scored(images, protocols, features)] if is_main else []
        if is_main and final:
            rest = time.perf_counter() - began - sum(seconds.values())
            foreseeing.note(self._drawing, rest / n_fake)
            for extractor, of_all in seconds.items():
                foreseeing.note(foreseeing.extraction(extractor, self.where), of_all / n_fake)
        return scores

    @property
    def where(self) -> foreseeing.Where:
        """What decides how fast it scores, beside the networks."""
        return foreseeing.Where(
            self.device.type,
            system.device_name(self.device),
            torch.get_num_threads(),
            self.context.world_size,
        )

    @property
    def _drawing(self) -> str:
        return foreseeing.drawing(self.config, self.store.manifest.kind, self.where)

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
        ours = extract(self._extractor(how.extractor), images, progress=self._advance)
        layers = ours.pool, ours.logits
        return Features(*(self.context.gather(layer, how.n_fake) for layer in layers))

    def _scored(
        self, images: Tensor, protocols: Sequence[Protocol], features: Sequence[Features]
    ) -> Iterator[Score]:
        """Yield the score by each extractor; figures of pixels stand in the first."""
        by_features = [
            self._by_features(images, how, made)
            for how, made in zip(protocols, features, strict=False)
        ]
        how = protocols[0]
        main, *rest = by_features or [_recorded(how, {}, {})]
        pixels = measure(Evidence(images, how), self.by_pixels)
        floor = self._pixel_floor(how)
        doubts = [text for metric in self.by_pixels for text in metric.doubts(how)]
        doubts += _undefined(pixels, how)
        yield main.model_copy(
            update={
                "metrics": main.metrics | pixels,
                "floor": main.floor | floor,
                "warnings": (*main.warnings, *doubts),
            }
        )
        yield from rest

    def _by_features(self, images: Tensor, how: Protocol, features: Features) -> Score:
        real, labels = self._reference(how), None
        if classes := self.config.model.classes:
            real_labels = torch.from_numpy(self.real.labels[real.rows])
            labels = torch.arange(how.n_fake) % classes, real_labels
        extractor, metrics = self._extractor(how.extractor), self.by_features[how.extractor]
        return score(images, real, how, extractor, metrics, features=features, labels=labels)

    def _extractor(self, name: str) -> Extractor:
        """Return the network whose features are compared; loaded when first needed."""
        if name not in self._extractors:
            extractor, own = EXTRACTORS[name], self.config.evaluation.options.get(name)
            file = extractor.file_of(self.config.run)
            self._extractors[name] = extractor(self.device, file, own)
        return self._extractors[name]

    def _reference(self, how: Protocol) -> Reference:
        """Return the real side at the protocol's set sizes; features come from the cache."""
        key = how.extractor, how.n_fake
        if key not in self._references:
            n_floor = min(self.config.evaluation.n_floor, how.n_fake)
            new = self._unseen(*key)
            self._references[key] = reference(
                self.real.images,
                self.held_out.images if self.held_out else None,
                how,
                self._extractor(how.extractor),
                cache_root() / "features",
                n_floor,
                partial(self._advance, worth=self._of_a_real if new else Fraction(0)),
                self.by_features[how.extractor],
            )
            kept = self.config, self.store.manifest, self.where, *key
            foreseeing.note(foreseeing.real_side(*kept))
        return self._references[key]

    def _pixel_floor(self, how: Protocol) -> dict[str, float | None]:
        """Return what held-out real images score by the metrics of pixels."""
        if self._floor_by_pixels is None and self.held_out and self.by_pixels:
            held_out = self.held_out.images[: self.config.evaluation.n_floor]
            metrics = [metric for metric in self.by_pixels if metric.has_floor]
            evidence = Evidence(torch.from_numpy(held_out.copy()), how)
            self._floor_by_pixels = measure(evidence, metrics)
        return self._floor_by_pixels or {}

    def _advance(self, images: int, worth: Fraction | None = None) -> None:
        self._done += images * (self._of_a_pass if worth is None else worth)
        self.progress(int(self._done), self._total)
