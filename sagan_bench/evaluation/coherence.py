"""Scores images of ``twins`` by the rule that made them, without any learned network.

Foreground is every pixel whose chroma, max(RGB) - min(RGB), exceeds 90 of 255: real backgrounds
reach 31 and real shapes 207, so that a blurry generator's shapes are still found whole. Components
(8 neighbours) are sought in each half alone: one object across the middle counts as two that touch
it. In each half the largest component is the shape; what lies beside it are specks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

CHROMA = 90
"""Foreground has more chroma than this, in levels of 255."""
SPECKS = 0.005
"""A half may hold this much foreground beside its shape, as a share of the image."""
AREA = (0.02, 0.20)
"""Least and greatest area of a shape, as a share of the image."""
AREA_RATIO = 1.25
"""The larger shape covers less than this times the smaller's area."""
HUE_RESULTANT = 0.9
"""The mean of the hues in a shape, each a unit vector, is longer than this."""
HUE_GAP = 15.0
"""The mean hues of the two shapes differ by less than this, in degrees."""
HUE_BINS = 36
"""Bins of 10 degrees for the entropy of hues."""
DUPLICATE = 5.0
"""Two images are near-duplicates if their 8 x 8 block means differ by less, RMS in levels of 255.

Nearest neighbours among 10,000 real images are 6.6 apart or more; noise of 14 levels a pixel at
32 px leaves copies of one image below 5.
"""

_ORDERS = (2, 3, 4, 5)  # rotation moves a moment of one of these, of any shape but disc and ring
_CHUNK_PIXELS = 2**20


class Halves(NamedTuple):
    """The shapes of n images, index 0 of the axis of length 2 left and 1 right; 0 where none is."""

    area: NDArray[np.float64]  # (n, 2) share of the image
    specks: NDArray[np.float64]  # (n, 2) other foreground, share of the image
    touches: NDArray[np.bool_]  # (n, 2) has a pixel next to the middle line
    hue: NDArray[np.complex128]  # (n, 2) mean of the pixels' hues as unit vectors
    height: NDArray[np.float64]  # (n, 2) vertical position of the centroid, in sides
    moments: NDArray[np.complex128]  # (n, 2, orders); turning by t multiplies by exp(i order t)


def coherence(images: Tensor) -> dict[str, float | None]:
    """Return how well ``images``, (N, 3, S, S) uint8, keep the rule of ``twins``, and how varied.

    The first seven are shares of all N images; an image lacking a shape in a half fails them all.

    - ``twin_rate``: all six conditions below hold. Above 0.99 for real images of 32 to 128 px.
    - ``one_component_each``: foreground beside the shape of a half is at most 0.5 % of the image.
    - ``area_in_range``: each shape covers 2 to 20 % of the image.
    - ``clear_of_middle``: neither shape has a pixel next to the middle line.
    - ``hue_pure``: the resultant of the hues within each shape is above 0.9.
    - ``hue_match``: the shapes' mean hues differ by less than 15 degrees.
    - ``area_match``: the larger shape has less than 1.25 times the smaller's area.

    The rest look for cheating; each is None where it is undefined.

    - ``hue_entropy``: entropy of the images' mean hues over 36 bins, divided by log 36: near 1 for
      real images, at most log K / log 36 for K images repeated.
    - ``distinct_images``: number of images that are no near-duplicate of an earlier one.
    - ``position_correlation``: Pearson's, of the vertical positions of left and right shape: near 0
      for real images, 1 for a copied or mirrored half.
    - ``rotation_correlation``: of the rotations of left and right shape, from 0 to 1: near 0 for
      real images, near 1 where all pairs turn alike (a copy) or all oppositely (a mirror image).

    Correlations are taken over the images with ``one_component_each``; those of N independent
    pairs reach about 1 to 2 / sqrt(N). No condition compares classes: of a right shape of another
    class only the area shows.

    Raises:
        ValueError: as `measured`.
    """
    return figures(images, measured(images))


def figures(images: Tensor, halves: Halves) -> dict[str, float | None]:
    """Return what `coherence` does, of images that were `measured`."""
    checks = conditions(halves)
    single = checks["one_component_each"]
    return {
        "twin_rate": float(np.logical_and.reduce(list(checks.values())).mean()),
        **{name: float(met.mean()) for name, met in checks.items()},
        "hue_entropy": _hue_entropy(halves),
        "distinct_images": _distinct_images(images),
        "position_correlation": _position_correlation(halves.height[single]),
        "rotation_correlation": _rotation_correlation(halves.moments[single]),
    }


def conditions(halves: Halves) -> dict[str, NDArray[np.bool_]]:
    """Return which of n images meet each condition, (n,) bool, by its name."""
    area, hue = halves.area, halves.hue
    both = area.min(axis=1) > SPECKS  # a shape in each half
    gap = np.abs(np.angle(hue[:, 0] * hue[:, 1].conj(), deg=True))
    met = {
        "one_component_each": halves.specks.max(axis=1) <= SPECKS,
        "area_in_range": ((area >= AREA[0]) & (area <= AREA[1])).all(axis=1),
        "clear_of_middle": ~halves.touches.any(axis=1),
        "hue_pure": np.abs(hue).min(axis=1) > HUE_RESULTANT,
        "hue_match": gap < HUE_GAP,
        "area_match": area.max(axis=1) < AREA_RATIO * area.min(axis=1),
    }
    return {name: both & which for name, which in met.items()}


def measured(images: Tensor) -> Halves:
    """Return what is measured of the shapes in images.

    Raises:
        ValueError: ``images`` is not (N, 3, S, S) uint8 with N of at least 1.
    """
    side = images.shape[-1]
    if images.dtype != torch.uint8 or images.shape[1:] != (3, side, side) or not len(images):
        raise ValueError(
            f"coherence takes (N, 3, S, S) uint8 images, not {tuple(images.shape)} {images.dtype}"
        )
    parts = [_measure_chunk(part.cpu().numpy()) for part in _chunks(images)]
    return Halves(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def shapes(images: Tensor) -> Tensor:
    """Return which pixels are of the left and which of the right shape: (N, 2, S, S) bool.

    images: (N, 3, S, S) uint8.
    """
    parts = list[NDArray[np.bool_]]()
    for chunk in _chunks(images):
        _, foreground = _foreground(chunk.cpu().numpy())
        count, _, side, width = foreground.shape
        body = _largest_components(foreground.reshape(-1, side, width))
        masks = np.zeros((count, 2, side, images.shape[-1]), np.bool_)
        masks[:, 0, :, :width], masks[:, 1, :, -width:] = body[::2], body[1::2]
        parts.append(masks)
    return torch.from_numpy(np.concatenate(parts))


def _chunks(images: Tensor) -> Sequence[Tensor]:
    return images.split(max(1, _CHUNK_PIXELS // images.shape[-1] ** 2))


def _foreground(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the halves of images, (n, 2, 3, S, width), and their foreground."""
    side = images.shape[-1]
    width = (side + 1) // 2  # the middle column of an odd side belongs to both halves
    halves = np.stack([images[..., :width], images[..., side - width :]], axis=1)
    return halves, halves.max(axis=2) - halves.min(axis=2) > CHROMA


def _measure_chunk(images: NDArray[np.uint8]) -> Halves:
    halves, foreground = _foreground(images)
    count, _, side, width = foreground.shape
    body = _largest_components(foreground.reshape(-1, side, width))
    area = body.sum(axis=(1, 2))
    half, y, x = np.nonzero(body)

    def mean(values: NDArray[np.float64 | np.intp]) -> NDArray[np.float64]:
        """Return the mean over the pixels of each shape, 0 where there is none."""
        return np.bincount(half, values, len(body)) / np.maximum(area, 1)

    def complex_mean(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return mean(values.real) + 1j * mean(values.imag)

    height = mean(y)
    offset = (x - mean(x)[half]) + 1j * (y - height[half])
    moments = [
        complex_mean(offset**order) / np.maximum(mean(np.abs(offset) ** order), 1e-9)
        for order in _ORDERS
    ]
    pair = body.reshape(count, 2, side, width)
    return Halves(
        area=area.reshape(count, 2) / side**2,
        specks=(foreground.sum(axis=(2, 3)) - area.reshape(count, 2)) / side**2,
        touches=np.any(np.stack([pair[:, 0, :, -1], pair[:, 1, :, 0]], axis=1), axis=2),
        hue=complex_mean(_hue_vectors(halves[half // 2, half % 2, :, y, x])).reshape(count, 2),
        height=height.reshape(count, 2) / side,
        moments=np.stack(moments, axis=1).reshape(count, 2, len(_ORDERS)),
    )


def _largest_components(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest component of each of m masks, (m, height, width)."""
    neighbours = np.zeros((3, 3, 3), dtype=np.int8)
    neighbours[1] = 1  # none across masks
    labels, count = ndimage.label(foreground, neighbours)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    owner = np.zeros(count + 1, dtype=np.intp)
    owner[labels] = np.arange(len(labels))[:, None, None]
    by_size = np.argsort(sizes[1:], kind="stable") + 1
    largest = np.full(len(labels), -1)
    largest[owner[by_size]] = by_size  # of several components of one mask the last is kept
    return labels == largest[:, None, None]


def _hue_vectors(rgb: NDArray[np.uint8]) -> NDArray[np.complex128]:
    """Return the hues of k coloured pixels, (k, 3), as complex numbers of length 1."""
    red, green, blue = rgb.astype(np.float64).T
    plane = red - (green + blue) / 2 + 1j * 0.75**0.5 * (green - blue)
    return plane / np.abs(plane)


def _hue_entropy(halves: Halves) -> float | None:
    """Return the entropy of the images' mean hues over all bins, from 0 to 1."""
    hue = (halves.hue * halves.area).sum(axis=1)
    hue = hue[np.abs(hue) > 0]
    if not len(hue):
        return None
    bins = np.round(np.angle(hue) * HUE_BINS / (2 * np.pi)).astype(int) % HUE_BINS
    counts = np.bincount(bins)
    share = counts[counts > 0] / len(hue)
    return float(-(share * np.log(share)).sum() / np.log(HUE_BINS))


def _distinct_images(images: Tensor) -> int:
    """Count the images that are further than ``DUPLICATE`` from every image before them."""
    blocks = [functional.adaptive_avg_pool2d(part.float(), 8) for part in _chunks(images)]
    points = torch.cat(blocks).flatten(1)
    limit = DUPLICATE * points.shape[1] ** 0.5
    distinct = 0
    for start in range(0, len(points), 1024):
        chunk = points[start : start + 1024]
        near = torch.cdist(chunk, points[: start + len(chunk)]) < limit
        distinct += int((~near.tril(start - 1).any(dim=1)).sum())
    return distinct


def _position_correlation(height: NDArray[np.float64]) -> float | None:
    """Return Pearson's correlation of the columns of (n, 2) positions."""
    if len(height) < 2 or height.std(axis=0).min() < 1e-9:
        return None
    standard = (height - height.mean(axis=0)) / height.std(axis=0)
    return float(standard.prod(axis=1).mean())


def _rotation_correlation(moments: NDArray[np.complex128]) -> float | None:
    """Return the correlation of left and right moments, (n, 2, orders), up to a common turn.

    With centred moments l and r of an order, alike is sum(l conj(r)) and opposite is sum(l r); the
    moduli are summed over the orders and divided by sqrt(sum |l|^2 sum |r|^2).
    """
    if len(moments) < 2:
        return None
    left, right = (moments - moments.mean(axis=0)).swapaxes(0, 1)
    norm = np.linalg.norm(left) * np.linalg.norm(right)
    if norm < 1e-9:
        return None
    alike, opposite = (np.abs((left * r).sum(axis=0)).sum() for r in (right.conj(), right))
    return float(max(alike, opposite) / norm)
