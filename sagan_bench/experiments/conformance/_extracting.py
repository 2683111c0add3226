"""Extractors: the same features of an image always, of the width that they say."""

from typing import Any

import torch
from torch import Tensor

from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject
from sagan_bench.experiments.conformance._parts import off

IMAGES, SIDES = 6, (32, 64)
FACTS = ("layer", "dimensions", "resize")
TOLERANCE = 1e-4


def _made(subject: Subject, seed: int = 0) -> Extractor:
    if not subject.component.at_hand():
        raise Skipped("its weights are not at hand")
    torch.manual_seed(seed)  # what it draws by chance must be by a seed of its own
    extractor: Extractor = subject.component()
    return extractor


def _images(side: int) -> Tensor:
    """Return noise, and a black and a white image, as scores have them: uint8."""
    images = torch.randint(256, (IMAGES, 3, side, side), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    return images


@torch.no_grad()
def _features(extractor: Extractor, images: Tensor) -> tuple[Tensor, ...]:
    made: Any = extractor.network(images)
    if isinstance(made, Tensor):
        raise Broken("its network returns a tensor", "return a tuple: (features,)")
    return tuple(made)


def facts(subject: Subject) -> str:
    """What protocols say of it is said, and nobody gets it by ``auto`` without its file."""
    component = subject.component
    if lacking := [name for name in FACTS if not hasattr(component, name)]:
        raise Broken(f"{', '.join(lacking)} is not said", f"set {lacking[0]} on its class")
    if component.preference and subject.name in EXTRACTORS.own:
        raise Broken("preference is for extractors that all have", "leave it out")
    return f"{component.layer}, {component.dimensions} wide, resize {component.resize}"


def features(subject: Subject) -> str:
    """Features are finite, of the width that is said, and tell images apart."""
    extractor, said = _made(subject), subject.component
    for side in SIDES:
        images = _images(side)
        before = images.clone()
        pool, *more = _features(extractor, images)
        if not images.equal(before):
            raise Broken("it changes the images that it is given", "work on a copy")
        if (tuple(pool.shape), pool.dtype) != ((IMAGES, said.dimensions), torch.float32):
            raise Broken(
                f"of {IMAGES} images it makes {pool.dtype} {tuple(pool.shape)}, not float32 "
                f"({IMAGES}, {said.dimensions})"
            )
        if not all(layer.isfinite().all() for layer in (pool, *more)):
            raise Broken("features are not finite", "pixels are uint8, from 0 to 255")
        if (said.isc_layer == "none") != (not more):
            raise Broken(
                f"isc_layer = {said.isc_layer!r}, and its network returns {1 + len(more)} layers",
                "the second layer is that of the inception score",
            )
        for a, b in ((0, 1), (2, 3)):
            if torch.equal(pool[a], pool[b]):
                raise Broken("different images have the same features")
    return f"float32 (n, {said.dimensions})"


def again(subject: Subject) -> str:
    """Made anew, it gives the same features; an image's do not depend on its batch."""
    images = _images(SIDES[0])
    (first, *_), (second, *_) = (_features(_made(subject, seed), images) for seed in (0, 1))
    if off(second, first) > TOLERANCE:
        raise Broken(
            "made a second time, it gives other features",
            "draw weights from a torch.Generator with a seed of its own",
        )
    extractor = _made(subject)
    alone = torch.cat([_features(extractor, image[None])[0] for image in images])
    whole, *_ = _features(extractor, images)
    if off(alone, whole) > TOLERANCE:
        raise Broken("features of an image depend on its batch", "leave batch statistics out")
    return "the same in any batch, and made anew"


EXTRACTOR = (facts, features, again)
