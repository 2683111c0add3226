"""How a picture becomes pixels, the same for every source of pictures.

The first frame; turned as its EXIF tag says; greyscale repeated, 16-bit greyscale divided by 257,
CMYK as Pillow converts it, colour profiles ignored; anything transparent laid on white; then centre
crop, fit and resize (:class:`Geometry`).

Decoding workers import this module, so it never imports torch.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Fit = Literal["centre-crop", "squash"]
Pixels = NDArray[np.uint8]
Picture = str | bytes | Image.Image
"""A path, the content of a picture file, or an RGB image."""

RESIZE = "bicubic, antialiased (Pillow)"
"""How pictures are resized, for the manifest and the fingerprint."""

_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
    "GIF",
    "PPM",
)  # not EPS: its reader starts a program


@dataclass(frozen=True)
class Geometry:
    """From an RGB picture of any size to uint8 (3, size, size): centre crop, fit, resize."""

    size: int
    crop: int | None
    fit: Fit

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the pixels; ValueError where the picture is smaller than ``crop``."""
        width, height = image.size
        shorter = min(width, height)
        if self.crop is not None and self.crop > shorter:
            raise ValueError(f"{width} x {height} pixels are fewer than the crop of {self.crop}")
        if self.crop is not None or self.fit == "centre-crop":
            side = self.crop or shorter
            left, top = (width - side) // 2, (height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(image).transpose(2, 0, 1)

    def enlarges(self, image: Image.Image) -> bool:
        """Return whether ``image`` has fewer pixels a side than it will have."""
        return (self.crop or min(image.size)) < self.size


class Decoded(NamedTuple):
    """Uint8 (n, 3, S, S) images, their places in what was given, the refused, how many grew."""

    images: Pixels
    places: list[int]
    refused: tuple[str, ...]
    enlarged: int


def decode(pictures: Iterable[tuple[str, Picture]], count: int, geometry: Geometry) -> Decoded:
    """Decode ``count`` pictures (name, picture); those that cannot be read are named instead."""
    images = np.empty((count, 3, geometry.size, geometry.size), np.uint8)
    places: list[int] = []
    refused: list[str] = []
    enlarged = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata: what matters is whether pixels come out
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for place, (name, picture) in enumerate(pictures):
            try:
                image = _open_rgb(picture)
                images[len(places)] = geometry(image)
            except Exception as error:  # noqa: BLE001 - damaged files make decoders raise anything
                refused.append(f"{name}: {_reason(error)}")
            else:
                places.append(place)
                enlarged += geometry.enlarges(image)
    return Decoded(images[: len(places)], places, tuple(refused), enlarged)


def _open_rgb(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    file = BytesIO(picture) if isinstance(picture, bytes) else picture
    with Image.open(file, formats=_FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as 8-bit RGB by fixed rules, never by its own minimum and maximum.

    Raises:
        ValueError: The pixels are floating-point or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("integer pixels beyond 16 bits have no fixed range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    """Say why a picture was refused, without the path that Pillow puts into some messages."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def start_worker() -> None:
    """Set up a decoding process: Ctrl-C is its parent's to handle, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent killed by SIGKILL closes no queue: its workers would wait for tasks for ever.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
