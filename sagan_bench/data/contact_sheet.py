"""A labelled grid of real images, to look at before training on them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sagan_bench.data.store import Store

COLUMNS = 8
MOST_ROWS = 10
_CELL = 64  # pixels a side at least, so that small images can be seen
_GAP = 2
_MARGIN = 160


def contact_sheet(store: Store) -> Image.Image:
    """Return the first training images of each class, in rows with its name beside.

    Few classes have several rows each; of more than ten classes the first ten are shown.
    """
    rows = list(_rows(store))
    cell = max(_CELL, store.manifest.image_size)
    width = _MARGIN + COLUMNS * (cell + _GAP)
    sheet = Image.new("RGB", (width, len(rows) * (cell + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (name, chosen) in enumerate(rows):
        top = row * (cell + _GAP)
        draw.text((4, top + cell // 2), _fitting(name, font), "black", font, anchor="lm")
        for column, index in enumerate(chosen):
            image = Image.fromarray(store.train.images[index].transpose(1, 2, 0))
            image = image.resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(image, (_MARGIN + column * (cell + _GAP), top))
    return sheet


def _rows(store: Store) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield for each row its name and the indices of its images."""
    names = store.manifest.classes[:MOST_ROWS]
    most = COLUMNS * max(1, COLUMNS // len(names))
    for label, name in enumerate(names):
        chosen = np.flatnonzero(store.train.labels == label)[:most]
        for start in range(0, max(len(chosen), 1), COLUMNS):
            yield name, chosen[start : start + COLUMNS]


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while font.getlength(text) > _MARGIN - 8:
        text = text.removesuffix("…")[:-1] + "…"
    return text
