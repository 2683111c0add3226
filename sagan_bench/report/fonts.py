"""The fonts of figures, without the tables that only a typesetter reads.

A PDF embeds what it uses of its fonts, and to find that out takes longest for the rules of
ligatures and of scripts.  Without them a page is made in two thirds of the time; glyphs and
kerning stay, and letters such as ff are drawn one by one, in bold a little wider.
"""

from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from fontTools.ttLib import TTFont, TTLibError
from matplotlib import font_manager

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.data.store import cache_root

FILES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
"""Those of matplotlib that figures are written in."""
RULES = ("GSUB", "GPOS", "GDEF")


@cache
def lighten() -> Path | None:
    """Have matplotlib draw with lighter copies of its own fonts, which lie in the cache.

    Returns:
        where they are; None where they could not be made or read, and the whole ones serve.
    """
    whole = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = font_manager.fontManager
    try:
        folder = cache_root() / "fonts" / f"matplotlib-{mpl.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            atomic_write(folder / name, _without_rules(whole / name))
            fonts.addfont(folder / name)
            fonts.ttflist.insert(0, fonts.ttflist.pop())  # of two of one name the first is taken
    except (OSError, RuntimeError, TTLibError, UserError):
        return None
    return folder


def _without_rules(file: Path) -> bytes:
    written = BytesIO()
    with TTFont(file, lazy=True, recalcTimestamp=False) as font:
        for rules in RULES:
            if rules in font:
                del font[rules]
        font.save(written)
    return written.getvalue()
