"""Metrics on designed features, and sources on what they list."""

import math
from typing import Any

import torch

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources._base import Source
from sagan_bench.evaluation.features import Features
from sagan_bench.evaluation.metrics import RUNS, Evidence
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.experiments.conformance._findings import Broken, Skipped, Subject, Unusual

IMAGES, WIDTH, PIXELS = 32, 8, 32
SOME = 256
"""Of a source, images that are made."""


def _evidence(subject: Subject, shift: float = 0.0) -> Evidence:
    """Return images, and features that are those of real ones but for a shift."""
    name = subject.component.extractor
    protocol = Protocol.fitted(
        extractor="effnet-lite0" if name in (RUNS, None) else name,
        layer="pool", isc_layer="logits", dimensions=WIDTH, resize="none", weights_sha256="0" * 64,
        data="0", split="train", n_real=2 * IMAGES, n_fake=IMAGES, sampling_seed=0,
        label_law="balanced", weights="ema", ema_decay=0.5, batchnorm="standing-1x2",
        kid_subsets=4, kid_subset_size=IMAGES // 2, isc_splits=2,
    )  # fmt: skip
    source = torch.Generator().manual_seed(1)
    real = torch.randn(2 * IMAGES, WIDTH, generator=source)
    fake = torch.randn(IMAGES, WIDTH, generator=source) + shift
    logits = torch.randn(IMAGES, WIDTH, generator=source)
    images = torch.randint(256, (IMAGES, 3, PIXELS, PIXELS), generator=source, dtype=torch.uint8)
    classes = torch.arange(IMAGES) % 2, torch.arange(2 * IMAGES) % 2
    return Evidence(images, protocol, Features(fake, logits), real, classes)


def facts(subject: Subject) -> str:
    """Which values are better is said, and the extractor is known."""
    metric = subject.component
    if getattr(metric, "better", None) not in ("lower", "higher"):
        raise Broken("it does not say which values are better", 'set better = "lower" or "higher"')
    if metric.extractor not in (RUNS, None) and metric.extractor not in EXTRACTORS:
        raise Broken(
            f"its extractor {metric.extractor!r} is not known here",
            "register it in the same file, or name another",
        )
    if metric.default and metric.name in METRICS.own:
        raise Broken("default = True is for metrics that all have", "leave it out, and name it")
    return f"{metric.better} is better"


def figures(subject: Subject) -> str:
    """It measures a number under its own name, the same again, and leaves what it is given."""
    metric, evidence = subject.component(), _evidence(subject)
    given = evidence.images.clone(), evidence.features.pool.clone()
    measured = [dict(metric.measure(each)) for each in (evidence, _evidence(subject))]
    if metric.name not in measured[0]:
        raise Broken(
            f"it measures {', '.join(map(str, measured[0])) or 'nothing'}",
            f"return {{self.name: value}}, i.e. {metric.name!r}",
        )
    for key, value in measured[0].items():
        if value is not None and not isinstance(float(value), float):
            raise Broken(f"{key} is no number")
    if not (given[0].equal(evidence.images) and given[1].equal(evidence.features.pool)):
        raise Broken("it changes the images or features that it is given", "work on copies")
    values = [each[metric.name] for each in measured]
    if values[0] is None or not math.isfinite(float(values[0])):
        return "undefined for images of noise"
    if not math.isclose(float(values[0]), float(values[1]), rel_tol=1e-6, abs_tol=1e-9):
        raise Broken(
            f"the same images give {float(values[0]):.6g} and {float(values[1]):.6g}",
            "draw from a seed of its own",
        )
    return f"{float(values[0]):.4g}, the same again"


def direction(subject: Subject) -> str:
    """Features far from the real ones are not better than those near them."""
    metric = subject.component()
    if metric.extractor is None:
        raise Skipped("it needs no features")
    near, far = (
        metric.measure(_evidence(subject, shift))[metric.name] for shift in (0.0, 20.0)
    )  # fmt: skip
    if near is None or far is None:
        return "undefined for these features"
    if (near - far if metric.better == "lower" else far - near) > 1e-9:
        raise Unusual(
            "far is better",
            f"features far from the real ones have {float(far):.4g}, near them {float(near):.4g}, "
            f"and {metric.better} is better: look at the sign",
        )
    return f"{float(near):.4g} near the real features, {float(far):.4g} far from them"


METRIC = (facts, figures, direction)


def described(subject: Subject) -> str:
    """How it is written after ``--data`` begins with its name."""
    usage = getattr(subject.component, "usage", None)
    if not isinstance(usage, str) or usage.partition(":")[0] != subject.name:
        raise Broken(f"usage = {usage!r} does not begin with its name", f"e.g. {subject.name}:PATH")
    return usage


def images(subject: Subject) -> str:
    """What it lists without a path has its form: uint8 (n, 3, S, S), and a class for each."""
    if ":" in subject.component.usage:
        raise Skipped(f"it is checked when it is used, as {subject.component.usage}")
    try:
        source: Source = subject.component(DataSpec(subject.name, PIXELS))
        listing = source.listing()
    except UserError as error:
        raise Skipped(f"it is checked when it is used: {error}") from None
    for name, part in listing.parts.items():
        count = 0
        for task in part.tasks:
            if count >= SOME:
                break
            chunk: Any = task()
            count += len(chunk.images)
            form = chunk.images.dtype.name, chunk.images.shape[1:]
            if form != ("uint8", (3, PIXELS, PIXELS)):
                raise Broken(f"{name} images are {form[0]} (n, {form[1]})", "uint8 (n, 3, S, S)")
            labels = chunk.labels
            if (
                len(labels) != len(chunk.images)
                or not ((labels >= 0) & (labels < len(listing.classes))).all()
            ):
                raise Broken(f"{name} labels are not a class for each image")
        if count != part.images and not SOME <= count < part.images:
            raise Broken(f"{name} lists {part.images} images and yields {count}")
    return ", ".join(f"{part.images} {name} images" for name, part in listing.parts.items())


SOURCE = (described, images)
