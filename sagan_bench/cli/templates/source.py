"""A source of images of my own: discs on a ground, to be changed.

python cli.py check FILE        what must hold before figures mean anything
"""

from functools import partial

import numpy as np

from sagan_bench.core.registry import SOURCES
from sagan_bench.data.decoding import Chunk
from sagan_bench.data.listing import DataSpec, Listing, Part, digest16
from sagan_bench.data.sources._base import Source

TRAIN, TEST = 1_024, 128
"""Images of both splits."""


def draw(seed: int, side: int, count: int) -> Chunk:
    """Return images (count, 3, side, side) uint8 and their classes; the same each time.

    It is run by other threads or processes: a function of this module, all given by arguments.
    """
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    images = chance.integers(0, 60, (count, 3, side, side), np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        centre, radius = chance.uniform(0.3, 0.7, 2) * side, side / (4 if label else 8)
        image[:, (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] = 220
    return Chunk(images, labels)


@SOURCES.register("my-source")
class MySource(Source):
    """What configurations know: data.source = my-source, or my-source:PATH where it reads one."""

    usage = "my-source"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.geometry = None  # images are made at the wanted size; else leave this line out
        # Names the prepared images in the cache: it changes whenever they would.
        self.key = digest16([spec.source, spec.image_size, TRAIN, TEST])

    def listing(self) -> Listing:
        """Return the classes, both splits, and how they were split."""
        side = self.spec.image_size
        train, test = (
            Part(count, [partial(draw, seed, side, count)])
            for seed, count in enumerate((TRAIN, TEST))
        )
        return Listing(("small", "large"), train, test, "drawn apart")
