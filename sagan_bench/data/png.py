"""PNG files that end behind their pixels: what wrote them was broken off, as with a JPEG's end."""

import os
from pathlib import Path

from PIL import Image

END = b"\0\0\0\0IEND\xaeB\x60\x82"
_KIND = END[4:8]


def refuse_without_end(image: Image.Image, picture: str | bytes) -> None:
    """Raise ValueError if ``image``, loaded from ``picture``, is a PNG without the mark of its end.

    What stands behind that mark is nobody's business.
    """
    if image.format == "PNG" and not _ends(picture):
        raise ValueError("the picture ends in the middle: it has no mark of its end")


def _ends(picture: str | bytes) -> bool:
    if isinstance(picture, bytes):
        return picture.endswith(END) or _KIND in picture
    with Path(picture).open("rb") as file:
        file.seek(-len(END), os.SEEK_END)
        if file.read() == END:
            return True
        file.seek(0)
        return _KIND in file.read()
