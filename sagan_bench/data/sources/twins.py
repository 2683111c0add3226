"""The procedural data set (:mod:`sagan_bench.data.shapes`) as a source."""

from functools import partial

import numpy as np

from sagan_bench.core.errors import UserError
from sagan_bench.data import shapes
from sagan_bench.data.listing import Chunk, DataSpec, Listing, Part, Source, at_most, digest16

TWINS_SEED = 0
"""The one seed of the published ``twins``; runs differ in their own seed, never in their data."""

_PIXELS_A_TASK = 2**20


def twins(spec: DataSpec) -> Source:
    """Find the procedural data set; a smaller one is the beginning of the whole one."""
    if spec.crop is not None:
        raise UserError(f"twins is drawn at its size; it has nothing to crop to {spec.crop} px")
    train = at_most(shapes.TRAIN_IMAGES, spec.train_images, "training", "twins")
    test = at_most(shapes.TEST_IMAGES, spec.test_images, "test", "twins")
    definition = {
        "twins_version": shapes.TWINS_VERSION,
        "seed": TWINS_SEED,
        "image_size": spec.image_size,
        "train_images": train,
        "test_images": test,
    }
    return Source(
        kind="twins",
        image_size=spec.image_size,
        key=digest16(definition),
        listing=partial(_listing, train, test, spec.image_size),
        geometry=None,
        definition=definition,
    )


def _listing(train: int, test: int, size: int) -> Listing:
    first_test = shapes.TRAIN_IMAGES
    return Listing(
        classes=shapes.CLASSES,
        train=_part(0, train, size),
        test=_part(first_test, first_test + test, size) if test else None,
        split_rule=f"indices from 0 are for training, from {first_test} for testing",
    )


def _part(start: int, stop: int, size: int) -> Part:
    step = max(1, _PIXELS_A_TASK // size**2)
    spans = ((first, min(first + step, stop)) for first in range(start, stop, step))
    return Part(stop - start, [partial(_draw, *span, size) for span in spans])


def _draw(start: int, stop: int, size: int) -> Chunk:
    return Chunk(*shapes.draw(np.arange(start, stop), seed=TWINS_SEED, size=size))
