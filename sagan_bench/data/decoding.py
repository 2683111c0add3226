"""How a picture becomes pixels, the same for every source of pictures.

The first frame; turned as its EXIF tag says; greyscale repeated, 16-bit greyscale divided by 257,
CMYK as Pillow converts it, colour profiles ignored; anything transparent laid on white; then centre
crop, fit and resize (:class:`Geometry`).

Decoding workers import this module, so it never imports torch.
"""

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sagan_bench.data.failures import failure, vanished
from sagan_bench.data.jpeg import refuse_half
from sagan_bench.data.plain import without_remarks
from sagan_bench.data.png import refuse_without_end

Fit = Literal["centre-crop", "squash"]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Picture = str | bytes | Image.Image
"""A path, the content of a picture file, or an RGB image."""

RESIZE = "bicubic, antialiased (Pillow)"
"""How pictures are resized, for the manifest and the fingerprint."""

_HAS_AVIF = importlib.util.find_spec("PIL.AvifImagePlugin") is not None  # not before Pillow 11.3
_FORMATS = (  # not EPS: its reader starts a program
    *("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000"),
    *("ICO", "DDS", "PSD", "QOI", "SGI", "PCX"),
    *(["AVIF"] if _HAS_AVIF else []),
)
_TGA = ".tga"  # a format without a mark: anything may seem to be one, so the ending must say so

_BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0",
    b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
    b"DDS |\0\0\0", b"8BPS\0\1", b"qoif",
)  # fmt: skip
"""What files of pictures begin with, where that is said by more than two letters."""

_SHORT_BEGINNINGS = (
    *(b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
    *(b"\0\0\1\0", b"\x01\xda", b"\n\0", b"\n\2", b"\n\3", b"\n\5"),
)
"""Those that can be a text's or anything's: whether the header can be read decides."""

_LARGEST_REMARKED = 2**28  # bytes of a file that is read once more without its remarks


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


class Chunk(NamedTuple):
    """What one task yields: uint8 (n, 3, S, S) images, int64 (n,) labels, and what it refused.

    ``refused`` holds one ``name: reason`` for each picture that could not be read; ``enlarged``
    counts those of the images that were smaller than S.
    """

    images: Pixels
    labels: Labels
    refused: tuple[str, ...] = ()
    enlarged: int = 0


def decode(
    pictures: Iterable[tuple[str, Picture]], labels: Sequence[int] | Labels, geometry: Geometry
) -> Chunk:
    """Decode pictures (name, picture), each with its label; those that cannot be read are named.

    Raises:
        MachineError: One could not be read just now, which is no property of it.
    """
    images = np.empty((len(labels), 3, geometry.size, geometry.size), np.uint8)
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
            except Exception as error:  # damaged files make decoders raise anything
                path = picture if isinstance(picture, str) else ""
                if failed := failure(error, path) or vanished(error, path):
                    raise failed from error
                refused.append(f"{name}: {_reason(error)}")
            else:
                places.append(place)
                enlarged += geometry.enlarges(image)
    kept = np.asarray(labels, np.int64)[places]
    return Chunk(images[: len(places)], kept, tuple(refused), enlarged)


def _open_rgb(picture: Picture) -> Image.Image:
    """Return a picture as RGB, without its remarks where those are what cannot be read."""
    if isinstance(picture, Image.Image):
        return picture
    try:
        return _read(picture)
    except Exception as error:
        if failure(error):
            raise
        for plain in _without_remarks(picture):
            if (image := _attempt(plain)) is not None:
                return image
        raise  # the first error says better what is wrong


def _attempt(plain: bytes) -> Image.Image | None:
    try:
        return _read(plain)
    except Exception as error:
        if failure(error):
            raise
        return None


def _read(picture: str | bytes) -> Image.Image:
    file = BytesIO(picture) if isinstance(picture, bytes) else picture
    tga = isinstance(picture, str) and picture.lower().endswith(_TGA)
    with Image.open(file, formats=("TGA", *_FORMATS) if tga else _FORMATS) as image:
        image.load()
        refuse_half(image, picture)
        refuse_without_end(image, picture)
        turn = _TURNS.get(_orientation(image))
        return to_rgb(image if turn is None else image.transpose(turn))


def _without_remarks(picture: str | bytes) -> Iterator[bytes]:
    if isinstance(picture, str):
        path = Path(picture)
        if not path.is_file() or path.stat().st_size > _LARGEST_REMARKED:
            return
        picture = path.read_bytes()
    yield from without_remarks(picture)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From EXIF's tag to what undoes it, as Pillow's ImageOps has them."""


def _orientation(image: Image.Image) -> int:
    """Return how a picture is to be turned; 1, not at all, where its EXIF cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception as error:  # damaged remarks make their readers raise anything
        if failure(error):
            raise
        return 1


def looks_like_a_picture(path: Path) -> bool:
    """Return whether a file is a picture by its content, whatever it is called.

    Raises:
        MachineError: It cannot be read just now.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        if failed := failure(error, path):
            raise failed from error
        return False
    if head.startswith(_BEGINNINGS) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
        return True
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return _HAS_AVIF
    return head.startswith(_SHORT_BEGINNINGS) and _opens(path)


def size_of(path: Path) -> tuple[int, int] | None:
    """Return width and height as a picture's header has them; None if it cannot be read.

    Raises:
        MachineError: It cannot be read just now.
    """
    tga = path.name.lower().endswith(_TGA)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("TGA", *_FORMATS) if tga else _FORMATS) as image:
                return image.size
    except Exception as error:  # damaged files make decoders raise anything
        if failed := failure(error, path):
            raise failed from error
        return None


def _opens(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=_FORMATS).close()
    except Exception as error:  # texts make decoders raise anything
        if failed := failure(error, path):
            raise failed from error
        return False
    return True


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
