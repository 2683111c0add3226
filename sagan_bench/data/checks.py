"""What is wrong with prepared data, found before the first step."""

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import some
from sagan_bench.data.store import Manifest


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
