"""Pictures without their remarks: what stands in a file beside the pixels and may be damaged."""

import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_KEPT = frozenset((b"tRNS", b"eXIf"))  # of those that a reader may leave out
_JPEG_DROPPED = frozenset((0xE1, *range(0xE2, 0xEE), 0xEF, 0xFE))  # not JFIF's and not Adobe's
_SCAN = 0xDA


def without_remarks(data: bytes) -> bytes | None:
    """Return a PNG or JPEG file without texts, profiles and dates; None for any other."""
    if data.startswith(_PNG):
        return _plain_png(data)
    if data.startswith(_JPEG):
        return _plain_jpeg(data)
    return None


def _plain_png(data: bytes) -> bytes:
    """Keep the chunks that make pixels as they are, and of the others two whose sums are right."""
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, chunk = data[place + 4 : place + 8], data[place:end]
        right = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if kind[:1].isupper() or (kind in _PNG_KEPT and right):
            kept.append(chunk)
        place = end
    return b"".join(kept)


def _plain_jpeg(data: bytes) -> bytes:
    """Drop the segments of applications and comments before the first scan."""
    kept, place = [_JPEG], 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        mark = data[place + 1]
        if mark == _SCAN:
            break
        if mark == 0xFF:  # a byte that fills
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if mark not in _JPEG_DROPPED:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
