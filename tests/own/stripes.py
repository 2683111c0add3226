"""Data: upright and level stripes."""

from functools import partial

import numpy as np

from sagan_bench.core.registry import SOURCES
from sagan_bench.data.decoding import Chunk
from sagan_bench.data.listing import DataSpec, Listing, Part, digest16
from sagan_bench.data.sources._base import Source


def draw(side: int, count: int) -> Chunk:
    """Return images (count, 3, side, side) uint8 and their classes."""
    images = np.random.default_rng(0).integers(0, 40, (count, 3, side, side), np.uint8)
    images[::2, :, :, ::8] = images[1::2, :, ::8] = 250
    return Chunk(images, np.arange(count) % 2)


@SOURCES.register("stripes")
class Stripes(Source):
    """As many as are asked for."""

    usage = "stripes:COUNT"
    auto_crop_px = 16

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.count, self.key = int(str(spec.path)), digest16(spec.source)

    def listing(self) -> Listing:
        """Return one part, all of it for training."""
        task = partial(draw, self.spec.image_size, self.count)
        return Listing(("upright", "level"), Part(self.count, [task]), None, "all for training")
