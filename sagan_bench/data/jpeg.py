"""JPEG files that end in the middle: Pillow fills the rest with grey, and says nothing.

The entropy-coded data of a JPEG end where its last block ends. Bytes put in there, before the mark
of the end, are passed over by a decoder that has all its blocks, and decoded by one that has not.
So a file is whole if they change no pixel, whatever its kind.

What cannot be told: bytes that were changed, not lost; less than some 8 x 8 blocks at the end; and
zeros in a file whose own tables code flat blocks by zeros, or that has more than one scan.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

_SCAN, _TABLES, _END = b"\xff\xda", b"\xff\xc4", b"\xff\xd9"
_FILLER = bytes((37 * number + 11) % 251 for number in range(64))
_ZEROS = bytes(64)
_GREY = (127, 128)
"""What each channel of a block that never came is filled with, by rounding."""
_LARGEST = 2**28


def refuse_half(image: Image.Image, picture: str | bytes) -> None:
    """Raise ValueError if ``image``, loaded from ``picture``, is a JPEG that ends in the middle.

    Few files are decoded a second time: progressive ones, those that end in grey, and those with a
    run of zeros.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    if isinstance(picture, str):
        path = Path(picture)
        if path.stat().st_size > _LARGEST:
            return
        picture = path.read_bytes()
    if (scan := _first_scan(picture)) is None:
        return
    end = picture.find(_END, scan)
    if end < 0:
        raise ValueError("the picture ends in the middle: it has no mark of its end")
    progressive = bool(image.info.get("progressive"))
    if (progressive or _ends_in_grey(image)) and _changes(
        image, picture[:end] + _FILLER + picture[end:]
    ):
        raise ValueError("the picture ends in the middle: its data stop before its last block")
    zeros = picture.find(_ZEROS, scan, end)
    if zeros < 0 or picture.find(_SCAN, scan + 2, end) >= 0 or _zeros_are_flat(picture, scan):
        return
    if _changes(image, picture[:zeros] + picture[end:]):
        raise ValueError("the picture ends in the middle: zeros stand for some of its data")


def _first_scan(data: bytes) -> int | None:
    """Return where the first scan begins, behind the segments of the head; None if that is odd."""
    place = 2
    while data[place : place + 1] == b"\xff":
        if data[place : place + 2] == _SCAN:
            return place
        if data[place + 1 : place + 2] == b"\xff":  # a byte that fills
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _ends_in_grey(image: Image.Image) -> bool:
    """Return whether the last block is grey, as those are that never came."""
    width, height = image.size
    block = image.crop((width - 1 - (width - 1) % 8, height - 1 - (height - 1) % 8, width, height))
    levels = block.getextrema()
    pairs = levels if isinstance(levels[0], tuple) else (levels,)
    return all(low in _GREY and high in _GREY for low, high in pairs)


def _changes(image: Image.Image, data: bytes) -> bool:
    """Return whether ``data`` decode to other pixels than ``image`` has."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as other:
        return other.tobytes() != image.tobytes()


def _zeros_are_flat(data: bytes, scan: int) -> bool:
    """Return whether all tables code the end of a block by zeros, as flat pictures may have it."""
    place = 2
    flat: list[bool] = []
    while place < scan:
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place : place + 2] == _TABLES:
            flat += _flat_tables(data[place + 4 : place + length])
        place += 1 if data[place + 1 : place + 2] == b"\xff" else length
    return all(flat)


def _flat_tables(tables: bytes) -> Iterator[bool]:
    """Yield of each table for all but mean levels whether its first code, all zeros, ends a block.

    A table is a byte that tells its kind, 16 counts, and the symbols in the order of their codes.
    """
    while len(tables) > 17:
        if tables[0] >= 16:
            yield tables[17] == 0
        tables = tables[17 + sum(tables[1:17]) :]
