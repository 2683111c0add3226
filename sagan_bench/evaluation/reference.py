"""The real side of a score, and what real images score against real ones; both are kept."""

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import Timeout
from numpy.typing import NDArray
from torch import Tensor

from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_file, sweep_dead
from sagan_bench.core.locks import Held, acquired
from sagan_bench.core.seeding import generator
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.features import Features, Images, extract
from sagan_bench.evaluation.measuring import default_metrics, finite, measure
from sagan_bench.evaluation.metrics import Evidence, Metric
from sagan_bench.evaluation.protocol import Protocol

Floats = NDArray[np.floating[Any]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """The real side: features (N, d) float32, and what held-out real images score against them.

    ``rows`` are the images' places in their split.
    """

    pool: Tensor
    floor: dict[str, float | None]
    n_floor: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class _Chosen:
    """Real images, the rows of those to use, and the key of what is computed from them."""

    images: Images
    rows: NDArray[np.int64]
    key: str
    extractor: Extractor
    progress: Callable[[int], None]

    def features(self) -> Features:
        return extract(self.extractor, self.images, self.rows, self.progress)

    def kept(self, path: Path, make: Callable[[], Floats], expected: tuple[int, int]) -> Floats:
        """Return the array in ``path``, made and stored there if it is missing or damaged.

        Of several processes that want it, one makes it and the others wait.

        ``expected``: its dimensions, and the length of the first.
        """
        values = self._stored(path, expected, warn=False)
        if values is None:
            with self._alone(path):
                values = self._stored(path, expected, warn=True)
                if values is None:
                    values = make()
                    _store(path, values)
        return values

    def _stored(self, path: Path, expected: tuple[int, int], *, warn: bool) -> Floats | None:
        """Return the array in ``path``; None if it is missing or, of which to warn, damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                values = stored["values"]
                key = str(stored["key"]) if "key" in stored else path.stem
            if (values.ndim, *values.shape[:1], key) != (*expected, path.stem):
                raise ValueError(f"an array {values.shape} of {key}")
            self.progress(len(self.rows))
            return values
        except FileNotFoundError:
            pass
        except (EOFError, LookupError, OSError, RuntimeError, ValueError, BadZipFile) as error:
            if warn:
                _log.warning("%s is damaged and is made again: %s", path, error)
        return None

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Hold the lock of ``path`` within, if there can be one; waiting ends by `progress`."""
        held: Held | None = None
        with suppress(OSError):  # a folder that cannot be written to
            path.parent.mkdir(parents=True, exist_ok=True)
            while held is None:
                try:
                    held = acquired(path.with_suffix(".lock"), 0.5)
                except Timeout:
                    self.progress(0)
        try:
            yield
        finally:
            if held:
                held.release()


def _store(path: Path, values: Floats) -> None:
    try:
        sweep_dead(path.parent)
        with atomic_file(path) as new:
            np.savez(new, values=values, key=np.array(path.stem))
    except OSError as error:
        _log.warning("cannot keep %s for the next time: %s", path, error)


def reference(
    real: Images,
    held_out: Images | None,
    protocol: Protocol,
    extractor: Extractor,
    cache: Path,
    n_floor: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
    metrics: Sequence[Metric] | None = None,
) -> Reference:
    """Return the reference of ``protocol``, from the cache where the same pixels were seen before.

    Args:
        real: uint8 (N, 3, S, S), the whole split, of which ``n_real`` are chosen.
        held_out: likewise, images of another split for the floor; None if there are none.
        protocol: what the reference is for.
        extractor: the protocol's.
        cache: folder of the cache; made if missing.
        n_floor: held-out images, by default ``n_fake``; all of them if there are fewer.
        progress: called with the number of images just finished, or found in the cache.
        metrics: of the floor, all by the extractor; by default those of every score.

    Raises:
        UserError: the split has fewer images than ``n_real``.
        ValueError: the extractor is not the protocol's.
    """
    protocol.require(extractor=extractor.name)
    if len(real) < protocol.n_real:
        raise UserError(
            f"the {protocol.split} split has {len(real)} images, {protocol.n_real} were asked for; "
            "lower evaluation.n_real or leave it out for all"
        )
    chosen = _choose(real, protocol.split, protocol.n_real, protocol, extractor, progress)

    def seen() -> Floats:
        return chosen.features().pool.numpy()

    stored = cache / f"real-{chosen.key}.npz"
    pool = torch.from_numpy(chosen.kept(stored, seen, (2, protocol.n_real)))
    n_floor = min(n_floor or protocol.n_fake, 0 if held_out is None else len(held_out))
    if held_out is None or n_floor < protocol.least_images:
        return Reference(pool, floor={}, n_floor=0, rows=chosen.rows)
    settings = Protocol.fitted(**protocol.model_dump() | {"n_fake": n_floor})
    against = _choose(held_out, "held-out", n_floor, protocol, extractor, progress)
    floored = [metric for metric in metrics or default_metrics() if metric.has_floor]
    floor = _floor(pool, chosen.key, against, settings, floored, cache)
    return Reference(pool, floor, n_floor, rows=chosen.rows)


def _floor(
    pool: Tensor,
    key: str,
    against: _Chosen,
    settings: Protocol,
    metrics: Sequence[Metric],
    cache: Path,
) -> dict[str, float | None]:
    """Return what held-out images score against features of that key."""
    keys = [key for metric in metrics for key in (metric.name, metric.spread) if key]

    def measured() -> Floats:
        images = torch.as_tensor(against.images[against.rows])
        floor = measure(Evidence(images, settings, against.features(), pool), metrics)
        return np.array([floor.get(key) for key in keys], dtype=np.float64)  # None becomes NaN

    names = "isc_splits", "kid_subsets", "kid_subset_size", "prc_neighborhood"
    numbers = [getattr(settings, name) for name in names]
    key = _key(key, against.key, *numbers, *(part for metric in metrics for part in _own(metric)))
    values = against.kept(cache / f"floor-{key}.npz", measured, (1, len(keys)))
    return dict(zip(keys, map(finite, values.tolist()), strict=True))


def _own(metric: Metric) -> list[str]:
    """Return what a metric's floor depends on, but for what every score has."""
    settings = metric.settings.model_dump_json(exclude_defaults=True)
    if metric.default and settings == "{}" and metric.__module__.startswith("sagan_bench."):
        return []
    source = extensions.source_of("METRICS", metric.name) or inspect.getsource(type(metric))
    return [metric.name, settings, source]


def _choose(
    images: Images,
    split: str,
    n: int,
    protocol: Protocol,
    extractor: Extractor,
    progress: Callable[[int], None],
) -> _Chosen:
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
    device = torch.device(extractor.device).type
    versions = [version(package) for package in ("torch", "torch-fidelity", "timm")]
    own = extractor.settings.model_dump_json(exclude_defaults=True)
    settings = [] if own == "{}" else [own]
    key = _key(pixels.hexdigest(), *facts, protocol.weights_sha256, device, *versions, *settings)
    return _Chosen(images, rows, key, extractor, progress)


def _key(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
