"""A configuration and its images -> the protocols it is scored under; impossible ones refused."""

from sagan_bench.config.options import Options
from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.data.store import Manifest, Split, SplitFacts, Store
from sagan_bench.evaluation.metrics import chosen, extractor_of
from sagan_bench.evaluation.protocol import Protocol


def check(config: RunConfig, manifest: Manifest, *, look: bool = False) -> list[str]:
    """Refuse before training what could not be scored after it, and return what is left open.

    Args:
        config: resolved.
        manifest: of the real images.
        look: fetch no weights; whether they can be fetched is what is left open.

    Raises:
        UserError: too few images for the metrics, no held-out images where they are the reference,
            or weights of an extractor that are missing or not the published ones.
    """
    metrics = chosen(config, manifest.kind)
    if config.run.eval_metrics == "rule" and None not in metrics:
        raise UserError(
            f"run.eval_metrics = rule: {manifest.kind} images follow no rule that could be "
            "checked; use all"
        )
    sizes = [config.evaluation.n_fake, *([config.run.eval_images] if config.run.eval_every else [])]
    for n_fake in sizes:
        protocol(config, manifest, "raw", 0, n_fake)
    for metric in (metric for group in metrics.values() for metric in group):
        metric.check(config, sizes)
    left = list[str]()
    for extractor in (EXTRACTORS[name] for name in metrics if name):
        file = extractor.file_of(config.run)
        if look:
            left += extractor.foresee(file)
        else:
            extractor.weights(file)
    return left


def protocol(
    config: RunConfig,
    manifest: Manifest,
    weights: Weights,
    seed: int,
    n_fake: int,
    extractor: str | None = None,
) -> Protocol:
    """Return the protocol of one sample set, by the run's extractor or another.

    Raises:
        UserError: as `check`.
    """
    evaluation, training = config.evaluation, config.training
    extractor = extractor or evaluation.extractor
    available = _scored(config, manifest).images
    return Protocol.fitted(
        **EXTRACTORS[extractor].facts(),
        data=manifest.fingerprint(),
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
        options=_options(config, extractor),
    )


def _z_law(truncation: float | None) -> str:
    law = str(Protocol.model_fields["z_law"].default)
    return law if truncation is None else f"{law}, |z| < {truncation:g}"


def _options(config: RunConfig, extractor: str) -> Options:
    """Return the settings of an extractor's own, and of the metrics under its protocol."""
    main = config.evaluation.extractor

    def is_under_it(name: str) -> bool:
        own = extractor_of(METRICS[name], main) if name in METRICS else name
        return (own or main) == extractor  # figures of pixels stand in the main score

    given = config.evaluation.options.items()
    return Options((name, settings) for name, settings in given if is_under_it(name))


def splits(config: RunConfig, store: Store) -> tuple[Split, Split | None]:
    """Return the real images to compare with, and those held out for the floor."""
    _scored(config, store.manifest)
    if config.evaluation.split == "train" or store.test is None:
        return store.train, store.test
    return store.test, store.train


def _scored(config: RunConfig, manifest: Manifest) -> SplitFacts:
    """Return the split to compare with.  Raises `UserError` if there is none."""
    if split := manifest.splits.get(config.evaluation.split):
        return split
    raise UserError("evaluation.split = test: these data have no held-out images; use train")
