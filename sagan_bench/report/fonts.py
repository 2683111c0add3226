"""The fonts of figures, without the tables that only a typesetter reads.

A PDF embeds what it uses of its fonts, and to find that out takes longest for the rules of
ligatures and of scripts.  Without them a page is made in two thirds of the time; glyphs, widths
and kerning stay.
"""

import tempfile
from functools import cache
from pathlib import Path

import matplotlib as mpl
from fontTools.ttLib import TTFont, TTLibError
from matplotlib import font_manager

FILES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
"""Those of matplotlib that figures are written in."""
RULES = ("GSUB", "GPOS", "GDEF")


@cache
def lighten() -> tempfile.TemporaryDirectory[str] | None:
    """Have matplotlib draw with lighter copies of its own fonts, for as long as the process runs.

    Returns:
        where they are; None where they could not be made, and the whole ones serve.
    """
    whole = Path(mpl.get_data_path()) / "fonts" / "ttf"
    try:
        folder = tempfile.TemporaryDirectory(prefix="sagan-bench-fonts-")
        for name in FILES:
            with TTFont(whole / name, lazy=True, recalcTimestamp=False) as font:
                for rules in RULES:
                    if rules in font:
                        del font[rules]
                font.save(Path(folder.name) / name)
    except (OSError, TTLibError):
        return None
    fonts = font_manager.fontManager
    for name in FILES:
        fonts.addfont(Path(folder.name) / name)
        fonts.ttflist.insert(0, fonts.ttflist.pop())  # of two of one name the first is taken
    return folder
