"""FID, IS, KID, precision and recall by torch-fidelity's own functions, from one feature pass."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_file, sweep_dead
from sagan_bench.core.precision import full_precision
from sagan_bench.core.seeding import generator
from sagan_bench.data.pixels import quantise
from sagan_bench.evaluation.extractors import Features, Images, extract
from sagan_bench.evaluation.protocol import Protocol

KEYS = {
    "fid": "frechet_inception_distance",
    "isc_mean": "inception_score_mean",
    "isc_std": "inception_score_std",
    "kid_mean": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "precision": "precision",
    "recall": "recall",
}
"""Our metric keys and torch-fidelity's."""

Sample = Callable[[int, int, int], Tensor]
"""``sample(seed, start, stop)``: images start..stop, float (stop - start, 3, S, S) in [-1, 1]."""
Progress = Callable[[int], None]
"""Called with the number of images just finished."""
Floats = NDArray[np.floating[Any]]

_log = logging.getLogger(__name__)


def _silent(images: int) -> None:
    pass


class NonFiniteImages(ArithmeticError):
    """A generator made NaN or infinity, which rounding would turn into plausible black pixels."""

    def __init__(self, index: int) -> None:
        super().__init__(f"generated image {index} is not finite")
        self.index = index


class Scores(BaseModel):
    """Every metric of one sample set, with the protocol behind it; null is what is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    protocol: Protocol
    fingerprint: str
    metrics: dict[str, float | None]
    floor: dict[str, float | None]
    warnings: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Reference:
    """The real side: features (N, d) float32, and what held-out real images score against them.

    ``rows`` are the images' places in their split.
    """

    pool: Tensor
    floor: dict[str, float | None]
    n_floor: int
    rows: NDArray[np.int64] | None = None


def sample_images(
    sample: Sample, n: int, seed: int, batch: int, progress: Progress = _silent
) -> Tensor:
    """Return exactly ``n`` generated images, uint8 (n, 3, S, S), whatever the batch size.

    Raises:
        NonFiniteImages: with the index of the first.
    """
    parts = []
    for start in range(0, n, batch):
        images = sample(seed, start, min(start + batch, n))
        finite = images.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise NonFiniteImages(start + int(finite.int().argmin()))
        parts.append(quantise(images).cpu())
        progress(len(images))
    return torch.cat(parts).contiguous()


def measure(fake: Features, real: Tensor, protocol: Protocol) -> dict[str, float | None]:
    """Return every metric of `KEYS`; None is one that is undefined for these images.

    All are equal to ``torch_fidelity.calculate_metrics`` with the same settings.

    Args:
        fake: features of the generated images.
        real: the real images' ``pool`` features, (N, d) float32.
        protocol: the settings; its set sizes are those of ``fake`` and ``real``.
    """
    settings: dict[str, Any] = {
        "kid_subsets": protocol.kid_subsets,
        "kid_subset_size": protocol.kid_subset_size,
        "prc_neighborhood": protocol.prc_neighborhood,
        "save_cpu_ram": True,
        "prc_batch_size": 1_000,  # memory for 1,000 x N distances; faster than larger blocks
        "verbose": False,
    }
    with full_precision():
        found = {
            **_fid(fake.pool, real),
            **isc_features_to_metric(fake.logits, protocol.isc_splits),
            **kid_features_to_metric(fake.pool, real, **settings),
            **prc_features_to_metric(fake.pool, real, **settings),
        }
    return {key: _finite(found[theirs]) for key, theirs in KEYS.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _fid(fake: Tensor, real: Tensor) -> dict[str, float]:
    fake_statistics, real_statistics = map(fid_features_to_statistics, (fake, real))
    try:
        return fid_statistics_to_metric(fake_statistics, real_statistics, verbose=False)
    except np.linalg.LinAlgError:  # the eigenvalues did not converge
        return {KEYS["fid"]: math.nan}


def intra_fid(fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> float | None:
    """Return the mean over classes of the FID within each; None if one of them is undefined.

    Miyato and Koyama 2018, section 5.  Features are (N, d) float32, labels (N,) int64.
    """
    found = []
    for label in fake_labels.unique():
        ours, theirs = fake[fake_labels == label], real[real_labels == label]
        if min(len(ours), len(theirs)) < 2:
            return None
        with full_precision():
            found.append(_fid(ours, theirs)[KEYS["fid"]])
    return _finite(sum(found) / len(found))


def score(
    images: Tensor,
    reference: Reference,
    protocol: Protocol,
    extractor: FeatureExtractorBase,
    progress: Progress = _silent,
    *,
    features: Features | None = None,
    labels: tuple[Tensor, Tensor] | None = None,
) -> Scores:
    """Return the scores of generated ``images``, uint8 (n_fake, 3, S, S), under ``protocol``.

    Args:
        images: the generated ones.
        reference: the real side.
        protocol: how they are scored.
        extractor: the protocol's.
        progress: called with the number of images whose features have just been made.
        features: of the generated images, if they have been made already.
        labels: classes of the generated and of the reference's images, for ``intra_class``.

    Raises:
        ValueError: images, reference or extractor are not those of the protocol.
    """
    _require("extractor", extractor.get_name(), protocol.extractor)
    _require("n_fake", len(images), protocol.n_fake)
    _require("n_real", len(reference.pool), protocol.n_real)
    began = time.perf_counter()
    features = features or extract(extractor, images, progress=progress)
    extracted = time.perf_counter()
    metrics = measure(features, reference.pool, protocol)
    if protocol.intra_class and labels:
        metrics["intra_fid"] = intra_fid(features.pool, labels[0], reference.pool, labels[1])
    return Scores(
        protocol=protocol,
        fingerprint=protocol.fingerprint(),
        metrics=metrics,
        floor=reference.floor,
        warnings=(*protocol.warnings(), *_doubts(images, metrics, reference, protocol)),
        seconds={"extract": extracted - began, "metrics": time.perf_counter() - extracted},
    )


def _require(what: str, given: object, expected: object) -> None:
    if given != expected:
        raise ValueError(f"the protocol's {what} is {expected}, given were {given}")


def _doubts(
    images: Tensor, metrics: Mapping[str, float | None], reference: Reference, protocol: Protocol
) -> list[str]:
    """Return what these images and this reference give reason to doubt."""
    doubts = [
        f"{protocol.label(key)} is undefined for these images"
        for key, value in metrics.items()
        if value is None
    ]
    distinct = len({hashlib.blake2b(image.tobytes()).digest() for image in images.numpy()})
    if distinct < len(images):
        doubts.append(f"collapse: only {distinct} of {len(images)} generated images are distinct")
    if not reference.floor:
        doubts.append("no held-out images, hence no real-against-real floor")
    elif reference.n_floor != protocol.n_fake:
        doubts.append(
            f"the floor is of {reference.n_floor} held-out images, not {protocol.n_fake}: "
            f"the bias of {protocol.label('fid')} differs"
        )
    return doubts


# --- The real side -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    """Real images, the rows of those to use, and the key of what is computed from them."""

    images: Images
    rows: NDArray[np.int64]
    key: str

    def features(self, extractor: FeatureExtractorBase, progress: Progress) -> Features:
        return extract(extractor, self.images, self.rows, progress)


def reference(
    real: Images,
    held_out: Images | None,
    protocol: Protocol,
    extractor: FeatureExtractorBase,
    cache: Path,
    n_floor: int | None = None,
    progress: Progress = _silent,
) -> Reference:
    """Return the reference of ``protocol``, from the cache where the same pixels were seen before.

    Args:
        real: uint8 (N, 3, S, S), the whole split, of which ``n_real`` are chosen.
        held_out: likewise, images of another split for the floor; None if there are none.
        protocol: what the reference is for.
        extractor: the protocol's, from `build_extractor`.
        cache: folder of the cache; made if missing.
        n_floor: held-out images, by default ``n_fake``; all of them if there are fewer.
        progress: called with the number of images just finished, or found in the cache.

    Raises:
        UserError: the split has fewer images than ``n_real``.
        ValueError: the extractor is not the protocol's.
    """
    _require("extractor", extractor.get_name(), protocol.extractor)
    if len(real) < protocol.n_real:
        raise UserError(
            f"the {protocol.split} split has {len(real)} images, {protocol.n_real} were asked for; "
            "lower evaluation.n_real or leave it out for all"
        )
    device = next(extractor.parameters()).device.type
    chosen = _choose(real, protocol.split, protocol.n_real, protocol, device)

    def seen() -> Floats:
        return chosen.features(extractor, progress).pool.numpy()

    stored = cache / f"real-{chosen.key}.npz"
    pool = torch.from_numpy(_cached(stored, seen, (2, protocol.n_real), chosen, progress))
    n_floor = min(n_floor or protocol.n_fake, 0 if held_out is None else len(held_out))
    if held_out is None or n_floor < protocol.least_images:
        return Reference(pool, floor={}, n_floor=0, rows=chosen.rows)
    settings = Protocol.fitted(**protocol.model_dump() | {"n_fake": n_floor})
    against = _choose(held_out, "held-out", n_floor, protocol, device)

    def measured() -> Floats:
        floor = measure(against.features(extractor, progress), pool, settings)
        return np.array([floor[key] for key in KEYS], dtype=np.float64)  # None becomes NaN

    names = "isc_splits", "kid_subsets", "kid_subset_size", "prc_neighborhood"
    key = _key(chosen.key, against.key, *(getattr(settings, name) for name in names))
    stored = cache / f"floor-{key}.npz"
    values = _cached(stored, measured, (1, len(KEYS)), against, progress)
    scores = dict(zip(KEYS, map(_finite, values.tolist()), strict=True))
    return Reference(pool, scores, n_floor, rows=chosen.rows)


def _choose(images: Images, split: str, n: int, protocol: Protocol, device: str) -> _Chosen:
    """Choose ``n`` images of a split: by a permutation of its own, ascending, the same always.

    The key is a hash of the very pixels and of what turns them into features, so that nothing stale
    can be found under it.
    """
    order = torch.randperm(len(images), generator=generator(0, "reference", split))
    rows = order[:n].sort().values.numpy()
    pixels = hashlib.sha256(repr(images.shape[1:]).encode())
    for start in range(0, n, 1024):
        pixels.update(np.asarray(images[rows[start : start + 1024]]).tobytes())
    facts = protocol.extractor, protocol.layer, protocol.isc_layer, protocol.resize
    versions = [version(package) for package in ("torch", "torch-fidelity", "timm")]
    key = _key(pixels.hexdigest(), *facts, protocol.weights_sha256, device, *versions)
    return _Chosen(images, rows, key)


def _key(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _cached(
    path: Path,
    make: Callable[[], Floats],
    expected: tuple[int, int],
    chosen: _Chosen,
    progress: Progress,
) -> Floats:
    """Return the array in ``path``, made and stored there if it is missing or damaged.

    ``expected``: its dimensions, and the length of the first.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = stored["values"]
            key = str(stored["key"]) if "key" in stored else path.stem
        if (found.ndim, *found.shape[:1], key) != (*expected, path.stem):
            raise ValueError(f"an array {found.shape} of {key}")
        progress(len(chosen.rows))
        return found
    except FileNotFoundError:
        pass
    except (EOFError, LookupError, OSError, RuntimeError, ValueError, BadZipFile) as error:
        _log.warning("%s is damaged and is made again: %s", path, error)
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_dead(path.parent)
        with atomic_file(path) as new:
            np.savez(new, values=made, key=np.array(path.stem))
    except OSError as error:
        _log.warning("cannot keep %s for the next time: %s", path, error)
    return made
