"""The procedural data set (:mod:`sagan_bench.data.shapes`) as a source."""

from functools import partial

import numpy as np

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES
from sagan_bench.data import shapes
from sagan_bench.data.decoding import Chunk
from sagan_bench.data.listing import DataSpec, Listing, Part, at_most, digest16, spans
from sagan_bench.data.sources._base import Source

TWINS_SEED = 0
"""The one seed of the published ``twins``; runs differ in their own seed, never in their data."""

_PIXELS_A_TASK = 2**20


@SOURCES.register("twins")
class Twins(Source):
    """The procedural data set; a smaller one is the beginning of the whole one."""

    usage = "twins"
    elsewhere = "twins is drawn, not fetched: use --data twins"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if spec.crop is not None:
            raise UserError(f"twins is drawn at its size; it has nothing to crop to {spec.crop} px")
        self.geometry = None
        self.train = at_most(shapes.TRAIN_IMAGES, spec.train_images, "training", "twins")
        self.test = at_most(shapes.TEST_IMAGES, spec.test_images, "test", "twins")
        self.definition = {
            "twins_version": shapes.TWINS_VERSION,
            "seed": TWINS_SEED,
            "image_size": spec.image_size,
            "train_images": self.train,
            "test_images": self.test,
        }
        self.key = digest16(self.definition)

    def listing(self) -> Listing:
        """Return tasks that draw."""
        first_test, size = shapes.TRAIN_IMAGES, self.spec.image_size
        return Listing(
            classes=shapes.CLASSES,
            train=_part(0, self.train, size),
            test=_part(first_test, first_test + self.test, size) if self.test else None,
            split_rule=f"indices from 0 are for training, from {first_test} for testing",
        )


def _part(start: int, stop: int, size: int) -> Part:
    parts = spans(stop - start, max(1, _PIXELS_A_TASK // size**2))
    tasks = [partial(_draw, start + part.start, start + part.stop, size) for part in parts]
    return Part(stop - start, tasks)


def _draw(start: int, stop: int, size: int) -> Chunk:
    return Chunk(*shapes.draw(np.arange(start, stop), seed=TWINS_SEED, size=size))
