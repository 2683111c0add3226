"""A labelled grid of real images, to look at before training on them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sagan_bench.data.store import Split, Store

COLUMNS = 8
MOST_ROWS = 10
_CELL = 64  # pixels a side at least, so that small images can be seen
_GAP = 2
_MARGIN = 160


def contact_sheet(store: Store) -> Image.Image:
    """Return the first training images of each class, a row for a class, with its name beside.

    Of one class there are several rows; of more than ten classes the first ten are shown.
    """
    rows = _rows(store)
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


def _rows(store: Store) -> list[tuple[str, list[int]]]:
    """Return for each row its name and the indices of its images."""
    names, split = store.manifest.classes, store.train
    if len(names) == 1:
        starts = range(0, min(len(split), COLUMNS * COLUMNS), COLUMNS)
        return [(names[0], _span(split, start)) for start in starts]
    found = [np.flatnonzero(split.labels == label)[:COLUMNS] for label in range(len(names))]
    return [(name, list(chosen)) for name, chosen in zip(names, found, strict=True)][:MOST_ROWS]


def _span(split: Split, start: int) -> list[int]:
    return list(range(start, min(start + COLUMNS, len(split))))


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while font.getlength(text) > _MARGIN - 8:
        text = text.removesuffix("…")[:-1] + "…"
    return text
