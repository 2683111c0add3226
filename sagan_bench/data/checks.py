"""What is wrong with data, found before the first step: once prepared, or on the way there."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import some
from sagan_bench.data.store import Manifest

SHOWN = 10
"""Names of refused pictures that an error or a manifest lists."""

_logger = logging.getLogger(__name__)


def check(
    manifest: Manifest, *, batch_size: int, conditional: bool = False, classes: int | None = None
) -> None:
    """Refuse data that a run of this kind could not learn from.

    Args:
        manifest: of the data.
        batch_size: images of a step.
        conditional: whether the model is told classes.
        classes: how many it was told there are; None if nobody said.

    Raises:
        UserError: fewer images than a batch; images that are all of one value, or whose values span
            no more than 0 to 1, as if they had been divided by 255 before they were saved;
            and for a conditional model, one class, a class without training images, or another
            number of classes than its own.
    """
    train, (low, high) = manifest.train, manifest.pixel_range
    if train.images < batch_size:
        raise UserError(
            f"a batch takes {batch_size} images, the training split has {train.images}; "
            "use a smaller --batch-size or more images"
        )
    if high - low <= 1:
        raise UserError(
            f"the pixels of all {train.images} training images lie between {low} and {high} of "
            "255: nothing can be seen in them; look at them with: data show"
        )
    if conditional:
        _check_classes(manifest)
        if classes not in (None, len(manifest.classes)):
            raise UserError(
                f"model.classes = {classes}, and the data have {len(manifest.classes)}; "
                f"add --set model.classes={len(manifest.classes)}"
            )


def _check_classes(manifest: Manifest) -> None:
    names, counts = manifest.classes, manifest.train.images_per_class
    if len(names) == 1:
        raise UserError(
            f"a conditional model needs two classes or more, the data have one ({names[0]}); is "
            "the path one folder level too high?"
        )
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise UserError(
            f"{len(empty)} of {len(names)} classes have no training image ({some(empty)}); leave "
            "them out, or take more images with data.train_images"
        )


# --- on the way there ---------------------------------------------------------------------------


def no_cache(place: Path, error: OSError) -> UserError:
    """Return what to tell the user where no store can be made at a place of the cache."""
    return UserError(
        f"cannot write to the cache {place.parent}: {error.strerror or error}; "
        "set SAGAN_BENCH_CACHE to a folder that can be written"
    )


def refuse_little_space(cache: Path, images: int, side: int) -> None:
    """Raise `UserError` if so many more prepared images do not fit on the disk of a cache."""
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    needed, free = images * (3 * side**2 + 8), shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{images} prepared images need {needed / 2**30:.2f} GiB, {cache} has "
            f"{free / 2**30:.2f} GiB free; make room or set SAGAN_BENCH_CACHE to a larger disk"
        )


def refuse_unreadable(first: Sequence[str], refused: int, images: int) -> None:
    """Raise `UserError` if pictures were refused, naming the first, beside so many images."""
    if refused:
        raise UserError(
            f"{refused} of {refused + images} pictures cannot be read{named(first, refused)}\n"
            "mend or remove them, or leave them out with --skip-bad"
        )


def named(refused: Sequence[str], count: int) -> str:
    """Return the first of so many refused pictures as lines below a message."""
    names = "".join(f"\n  {name}" for name in refused[:SHOWN])
    more = count - SHOWN
    return f":{names}" + (f"\n  ... and {more} more" if more > 0 else "")


def warn(manifest: Manifest) -> None:
    """Say what of a data set was passed over, left out or enlarged."""
    for remark in manifest.remarks:
        _logger.warning("%s", remark)
    if manifest.refused:
        _logger.warning("%d unreadable pictures are left out", manifest.refused)
    if manifest.enlarged:
        _logger.warning(
            "%d pictures have fewer than %d pixels a side and were enlarged",
            manifest.enlarged,
            manifest.image_size,
        )
