"""Pictures that end in the middle, and pictures of which only the remarks are odd."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagan_bench.data.decoding import Geometry, decode
from sagan_bench.data.sources._class_folders import read_files

SQUARE = Geometry(8, None, "centre-crop")
END = b"\xff\xd9"


def encoded(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def noise(side: int = 64) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


def refused(path: Path, content: bytes) -> tuple[str, ...]:
    path.write_bytes(content)
    return read_files(str(path.parent), [path.name], [0], SQUARE).refused


KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"optimize": True},
    {"progressive": True},
    {"restart_marker_rows": 1},
)


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("share", [0.4, 0.5, 0.7, 0.9])
def test_jpeg_that_ends_in_the_middle_is_refused(
    tmp_path: Path, how: dict[str, Any], share: float
) -> None:
    whole = encoded(noise(), **how)
    half = int(len(whole) * share)
    assert refused(tmp_path / "whole.jpg", whole) == ()
    for content in (whole[:half], whole[:half] + END, whole[:half] + bytes(len(whole) - half)):
        assert refused(tmp_path / "half.jpg", content)


def test_jpeg_whose_second_half_is_zeros_is_refused(tmp_path: Path) -> None:
    whole = encoded(noise())
    content = whole[: len(whole) // 2] + bytes(len(whole) // 2) + END
    (said,) = refused(tmp_path / "a.jpg", content)
    assert said == "a.jpg: the picture ends in the middle: zeros stand for some of its data"


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_flat_pictures_are_whole(tmp_path: Path, how: dict[str, Any], mode: str) -> None:
    for level in (0, 127, 128, 255):
        flat = Image.new(mode, (515, 515), (level,) * len(mode) if mode != "L" else level)
        assert refused(tmp_path / "a.jpg", encoded(flat, **how)) == ()


def test_zeros_behind_a_picture_are_no_damage(tmp_path: Path) -> None:
    whole = encoded(noise())
    assert refused(tmp_path / "a.jpg", whole + bytes(5000)) == ()
    assert refused(tmp_path / "a.jpg", whole[:-2] + bytes(5000) + END) == ()


# --- remarks -----------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes, sum_off_by: int = 0) -> bytes:
    check = (zlib.crc32(kind + data) + sum_off_by) % 2**32
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


BOMB = b"Comment\0\0" + zlib.compress(bytes(2**24))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"zTXt", BOMB),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**24))),
        chunk(b"tEXt", b"Comment\0x", sum_off_by=1),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**24))),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
    ],
)
def test_png_with_odd_remarks_is_read(tmp_path: Path, odd: bytes) -> None:
    whole = encoded(noise(), "PNG")
    for place in (33, len(whole) - 12):  # behind the header, and behind the pixels
        assert refused(tmp_path / "a.png", whole[:place] + odd + whole[place:]) == ()


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0II*\0\xff\xff",
        b"\xff\xe2" + struct.pack(">H", 16) + b"ICC_PROFILE\0\x09\x01",
        b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0II*\0",
        b"\xff\xed" + struct.pack(">H", 22) + b"Photoshop 3.0\x008BIM\x04\x04",
        b"\xff\xfe\x00\x02",
    ],
)
def test_jpeg_with_odd_remarks_is_read(tmp_path: Path, odd: bytes) -> None:
    whole = encoded(noise())
    assert refused(tmp_path / "a.jpg", whole[:2] + odd + whole[2:]) == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_png_whose_transparent_colour_is_cut_is_read(
    tmp_path: Path, mode: str, length: int
) -> None:
    whole = encoded(noise().convert(mode), "PNG")
    place = whole.index(b"IDAT") - 4
    content = whole[:place] + chunk(b"tRNS", bytes(length)) + whole[place:]
    assert refused(tmp_path / "a.png", content) == ()


def test_transparent_colour_stays_beside_odd_remarks(tmp_path: Path) -> None:
    black = encoded(Image.new("RGB", (16, 16)), "PNG", transparency=(0, 0, 0))
    (tmp_path / "a.png").write_bytes(black[:33] + chunk(b"zTXt", BOMB) + black[33:])
    assert read_files(str(tmp_path), ["a.png"], [0], SQUARE).images.min() == 255


def test_png_without_the_mark_of_its_end_is_cut(tmp_path: Path) -> None:
    whole = encoded(noise(), "PNG")
    said = "a.png: the picture ends in the middle: it has no mark of its end"
    for content in (whole[:-12], whole[:-12] + bytes(100)):
        assert refused(tmp_path / "a.png", content) == (said,)
    odd = whole[:-12] + chunk(b"tEXt", b"a\0b")
    assert refused(tmp_path / "a.png", odd) == (said,)
    assert decode([("b", odd)], [0], SQUARE).refused == (said.replace("a.png", "b"),)


def test_png_with_its_end_is_whole_whatever_follows(tmp_path: Path) -> None:
    whole = encoded(noise(), "PNG")
    for more in (b"", bytes(100), b"\n"):
        assert refused(tmp_path / "a.png", whole + more) == ()
        assert decode([("a", whole + more)], [0], SQUARE).refused == ()


def test_png_whose_remark_says_another_length_is_read(tmp_path: Path) -> None:
    whole = encoded(noise(), "PNG")
    odd = bytearray(chunk(b"zTXt", BOMB))
    odd[1] ^= 1
    assert refused(tmp_path / "a.png", whole[:-12] + bytes(odd) + whole[-12:]) == ()


def test_a_picture_is_turned_though_another_remark_is_odd(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upper = Image.new("RGB", (16, 16), "black")
    upper.paste("white", (0, 0, 16, 8))
    whole = encoded(upper, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk(b"zTXt", BOMB) + whole[33:])
    chunked = read_files(str(tmp_path), ["a.png"], [0], SQUARE)
    assert chunked.images[0, :, :, 5:].min() > 240
    assert chunked.images[0, :, :, :3].max() < 15


def test_png_whose_pixels_are_damaged_stays_refused(tmp_path: Path) -> None:
    whole = bytearray(encoded(noise(), "PNG"))
    whole[len(whole) // 2] ^= 255
    assert refused(tmp_path / "a.png", bytes(whole))
