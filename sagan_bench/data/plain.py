"""Pictures without their remarks: what stands in a file beside the pixels and may be damaged."""

import zlib
from collections.abc import Iterator

from sagan_bench.data.png import END

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_KEPT = frozenset((b"tRNS", b"eXIf"))  # of the chunks that a reader may leave out
_COLOUR_AT = 25  # the byte that says what pixels are: grey, RGB, of a palette
_TRANSPARENT = {0: 2, 2: 6, 3: 1}  # least bytes of a transparent colour, by that
_JPEG_DROPPED = frozenset((*range(0xE2, 0xEE), 0xEF, 0xFE))  # not JFIF's, EXIF's and Adobe's
_EXIF, _FILL, _SCAN = 0xE1, 0xFF, 0xDA


def without_remarks(data: bytes) -> Iterator[bytes]:
    """Yield what is left of a PNG or JPEG file: the pixels and how to turn them, then the pixels.

    Of any other file nothing.
    """
    if data.startswith(_PNG):
        yield _plain_png(data)
    if data.startswith(_JPEG):
        yield _plain_jpeg(data, _JPEG_DROPPED)
        yield _plain_jpeg(data, _JPEG_DROPPED | {_EXIF})


def _plain_png(data: bytes) -> bytes:
    """Keep the chunks that make pixels as they are, and of the others two whose sums are right."""
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, chunk = data[place + 4 : place + 8], data[place:end]
        right = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        short = kind == b"tRNS" and len(chunk) - 12 < _TRANSPARENT.get(data[_COLOUR_AT], len(chunk))
        if kind[:1].isupper() or (kind in _PNG_KEPT and right and not short):
            kept.append(chunk)
        place = end
    if END[4:8] in data and kept[-1] != END:  # behind a remark of a damaged length
        kept.append(END)
    return b"".join(kept)


def _plain_jpeg(data: bytes, dropped: frozenset[int]) -> bytes:
    """Drop segments before the first scan by their marks."""
    kept, place = [_JPEG], len(_JPEG)
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        mark = data[place + 1]
        if mark == _SCAN:
            break
        if mark == _FILL:
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if mark not in dropped:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
