"""Folders of pictures, generated and real -> a score under a protocol."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sagan_bench.config.schema import RunSection
from sagan_bench.core import system
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.data import pictures
from sagan_bench.data.decoding import RESIZE, Geometry, Pixels
from sagan_bench.data.listing import digest16
from sagan_bench.data.store import cache_root
from sagan_bench.evaluation.extractors import Extractor, best
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.measuring import default_metrics
from sagan_bench.evaluation.metrics import RUNS, Metric, shown
from sagan_bench.evaluation.protocol import PICTURES, Protocol, least_images_of
from sagan_bench.evaluation.reference import reference
from sagan_bench.evaluation.scoring import score
from sagan_bench.runs.records import Score

AUTO = "auto"


@dataclass(frozen=True)
class Folders:
    """Which pictures are scored against which, and how.

    Attributes:
        fake: folder of the generated ones.
        real: folder of the real ones.
        size: side in pixels to which all are brought; None where all have one.
        n_fake: generated ones that are used, by the hash of their names; None for all.
        metrics: keys; by default those of every score.
        extractor: of features.
        inception_weights: file of Inception's.
        device: where features are computed.
    """

    fake: Path
    real: Path
    size: int | None = None
    n_fake: int | None = None
    metrics: Sequence[str] = ()
    extractor: str = AUTO
    inception_weights: str | None = None
    device: str = AUTO


def score_folders(folders: Folders, progress: OnProgress = unwatched) -> Score:
    """Return the score of generated pictures against real ones; features of these are cached.

    Pictures are read as data are prepared (`sagan_bench.data.decoding`), and those of the size that
    is scored stay as they are.

    Raises:
        UserError: a folder without pictures, pictures of different sizes, too few of them, or a
            metric that is not measured so.
    """
    metrics = _metrics(folders.metrics)
    names = (
        (folders.fake, pictures.listed(folders.fake, folders.n_fake)),
        (folders.real, pictures.listed(folders.real)),
    )
    _refuse_too_few(folders, names)
    size = folders.size or pictures.common_size(names)
    extractor = _extractor(folders)
    geometry = Geometry(size, None, "centre-crop")
    fake, real = (pictures.read(root, of, geometry, progress) for root, of in names)
    total, done = len(fake) + len(real), 0

    def seen(images: int) -> None:
        nonlocal done
        done += images
        progress(done, total)

    how = _protocol(extractor, real, len(fake))
    cache = cache_root() / "features"
    against = reference(real, None, how, extractor, cache, progress=seen, metrics=metrics)
    images = torch.from_numpy(fake)
    features = extract(extractor, images, progress=seen)
    made = score(images, against, how, extractor, metrics, features=features)
    for metric in metrics:
        if metric.name not in made.metrics:
            raise UserError(f"metric {metric.name}: plain folders of pictures do not have it")
    return made


def _refuse_too_few(folders: Folders, names: Sequence[tuple[Path, Sequence[str]]]) -> None:
    least = least_images_of()
    if folders.n_fake is not None and folders.n_fake < least:
        raise UserError(f"--n-fake {folders.n_fake}: too few to score; use {least} or more")
    for root, of in names:
        if len(of) < least:
            few = f"{len(of)} of the {least} pictures that a score needs at least"
            raise UserError(f"{root} has {few}: too few to score; put more there")


def _metrics(names: Sequence[str]) -> list[Metric]:
    """Return the metrics that are asked for, all by features of the one extractor."""
    known = [name for name, metric in shown().items() if metric.extractor == RUNS]
    for name in names:
        if name not in known:
            raise UserError(f"metric {name}: {closest(name, known)}")
    return [METRICS[name]() for name in dict.fromkeys(names)] or default_metrics()


def _extractor(folders: Folders) -> Extractor:
    run = RunSection(inception_weights=folders.inception_weights)
    name = best(run) if folders.extractor == AUTO else folders.extractor
    if name not in EXTRACTORS:
        raise UserError(f"--extractor {name}: {closest(name, [AUTO, *EXTRACTORS])}")
    kind = EXTRACTORS[name]
    return kind(system.open_device(folders.device), kind.file_of(run))


def _protocol(extractor: Extractor, real: Pixels, n_fake: int) -> Protocol:
    """Return how pictures are scored: all the real ones, known by their content."""
    size, content = real.shape[-1], hashlib.sha256(np.ascontiguousarray(real).data).hexdigest()
    return Protocol.fitted(
        **extractor.facts(),
        data=digest16({"image_size": size, "resize": RESIZE, "content_sha256": content}),
        split="all",
        n_real=len(real),
        n_fake=n_fake,
        sampling_seed=0,
        z_law=PICTURES,
        label_law="none",
        weights="raw",
        ema_decay=None,
        batchnorm="none",
    )
