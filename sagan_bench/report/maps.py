"""Maps of attention as pictures: where each of a few points of an image looks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

Pixels = NDArray[np.uint8]
TILE_PX, GAP_PX = 96, 2
"""Side of one map, and what is between two."""


def sheets(arrays: Mapping[str, NDArray[Any]], images: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield each block and a picture of its maps, of so many images at most.

    Args:
        arrays: as a look leaves them: ``beta.BLOCK``, ``queries.BLOCK`` and each network's images.
        images: rows of a picture.
    """
    for key in arrays:
        kind, _, block = key.partition(".")
        if kind != "beta":
            continue
        shown, beta = arrays[block.partition(".")[0]], arrays[key]
        if beta.shape[2] == beta.shape[3]:  # a discriminator of halves has maps of halves
            queries = arrays[f"queries.{block}"]
            yield block, _sheet(shown[:images], beta[:images], queries)


def _sheet(images: Pixels, beta: NDArray[Any], queries: NDArray[Any]) -> Image.Image:
    """Return one row an image: the image with its query points, then a map for each of them.

    Args:
        images: uint8 (N, 3, S, S).
        beta: (N, queries, rows, columns).
        queries: (queries, 2), row and column on the feature map.
    """
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (step * (len(queries) + 1), step * len(images)), "white")
    for row, (image, maps) in enumerate(zip(images, beta, strict=True)):
        plain = Image.fromarray(image.transpose(1, 2, 0)).resize((TILE_PX, TILE_PX), 0)
        marked = plain.copy()
        for query in queries:
            _mark(marked, query, _cells(queries))
        sheet.paste(marked, (0, row * step))
        for column, (query, weights) in enumerate(zip(queries, maps, strict=True), start=1):
            tile = _over(plain, weights.astype(float))
            _mark(tile, query, _cells(queries))
            sheet.paste(tile, (column * step, row * step))
    return sheet


def _cells(queries: NDArray[Any]) -> int:
    """Return the side of the feature map: the centre, the first query, lies at half of it."""
    return int(2 * queries[0][0])


def _over(image: Image.Image, weights: NDArray[np.float64]) -> Image.Image:
    """Return the image in grey under a map, bright where the query looks; scaled to its maximum."""
    weight = weights / max(weights.max(), 1e-12)
    size = image.size
    mask = Image.fromarray((weight * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    strength = np.asarray(mask, dtype=float)[..., None] / 255
    grey = np.asarray(ImageOps.grayscale(image), dtype=float)[..., None] * 0.55
    opacity = 0.1 + 0.7 * strength
    return Image.fromarray(
        (grey * (1 - opacity) + _heat()[np.asarray(mask)] * opacity).astype(np.uint8)
    )


@cache
def _heat() -> NDArray[np.float64]:
    """Return the colour (256, 3) of each weight that a picture can hold."""
    return mpl.colormaps["inferno"](np.arange(256) / 255)[:, :3] * 255


def _mark(tile: Image.Image, query: Sequence[int], cells: int) -> None:
    y, x = ((int(part) + 0.5) / cells * TILE_PX for part in query)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((x - 4, y - 4, x + 4, y + 4), outline="black", width=3)
    draw.rectangle((x - 3, y - 3, x + 3, y + 3), outline="cyan", width=1)
