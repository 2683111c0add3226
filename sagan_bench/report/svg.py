"""Figures as inline SVG: text as text, colours that follow the page, no two ids alike.

Every figure states its finding in ``<title>`` and says in ``<desc>`` what is drawn.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sagan_bench.report import fonts, live

INK = "#010203"
"""Drawn where the page's own text colour is meant, and replaced by it."""
COLOURS = (
    "#0173b2", "#d55e00", "#029e73", "#a8449a", "#946000", "#6b6b6b", "#c2185b", "#5b4fc4",
)  # fmt: skip
"""Seaborn's ``colorblind`` where 3:1 on white allows it; the stylesheet has a dark twin of each."""
MARKERS = "osD^vPX*"
GLYPHS = dict(zip(MARKERS, "●■◆▲▼✚✖★", strict=True))
"""The markers as text."""
DASHES = ("-", "--", "-.", ":")
WIDTH_IN = 4.8
"""Of every figure: as wide as a telephone, so that its text can be read there."""
FEW = len(COLOURS)
"""Variants that one panel can tell apart; more get a panel each."""
NAME_CHARS, LINE_CHARS = 48, 22
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sagan_bench",
    "text.parse_math": False,
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": False,
}
PRINTED: Any = {**STYLE, "pdf.fonttype": 42}
"""Of files: text stays text."""
UNSAID: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""What a file does not say of itself, so that the same figure gives the same bytes."""
WHITE = '<rect width="100%" height="100%" fill="white"/>'
"""Below a figure that stands alone."""
EDGE: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.5}


class Look(NamedTuple):
    """How a variant is drawn everywhere: colour and, beside it, a marker and dashes."""

    colour: str
    marker: str
    dashes: str


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return a look for each variant; the first 64 are all different."""
    return {
        name: Look(
            COLOURS[i % len(COLOURS)],
            MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            DASHES[i % len(DASHES)],
        )
        for i, name in enumerate(variants)
    }


class Ids:
    """Ids for names of variants and runs: stable, unique, and safe in a link."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the id of a name."""
        if name not in self.by_name:
            slug = re.sub(r"[^A-Za-z0-9.+_-]+", "-", name)[:80].strip("-") or "x"
            taken = set(self.by_name.values())
            free = (slug if n == 1 else f"{slug}-{n}" for n in range(1, len(taken) + 2))
            self.by_name[name] = next(each for each in free if each not in taken)
        return self.by_name[name]


@dataclass(frozen=True)
class Theme:
    """How a page looks, and where in it what stands.

    Attributes:
        looks: of each variant.
        content: returns a picture by its name.
        runs: (variant, seed) -> name of the run.
        ids: of the rows of runs and variants.
    """

    looks: Mapping[str, Look]
    content: Callable[[str], bytes]
    runs: Mapping[tuple[str, int], str] = field(default_factory=dict)
    ids: Ids = field(default_factory=Ids)

    def run(self, variant: str, seed: int) -> str:
        """Return the id of a run's row; empty if it has none."""
        name = self.runs.get((variant, seed))
        return self.ids(f"run-{name}") if name else ""

    def variant(self, name: str) -> str:
        """Return the id of a variant's row."""
        return self.ids(f"v-{name}")

    @property
    def marks(self) -> dict[str, tuple[int, str]]:
        """Each variant's mark as in the figures: the number of its colour, and its shape."""
        return {
            name: (COLOURS.index(look.colour) + 1, GLYPHS[look.marker])
            for name, look in self.looks.items()
        }


@dataclass(frozen=True)
class Drawn:
    """A figure in the page, and to take away.

    Attributes:
        name: unique in the page.
        svg: as the page has it.
        title: the finding.
        caption: how it is read.
        alone: as an SVG file.
        figure: drawn once, so that its parts have their places.
    """

    name: str
    svg: str
    title: str
    caption: str
    alone: str = field(repr=False, compare=False)
    figure: Figure = field(repr=False, compare=False)

    def files(self) -> dict[str, bytes]:
        """Return the figure as files of its own, black on white: ``fig-NAME.svg`` and ``.pdf``."""
        written = io.BytesIO()
        with _drawing(PRINTED):
            self.figure.savefig(written, format="pdf", facecolor="white", metadata=UNSAID["pdf"])
        stem = f"fig-{self.name}"
        return {f"{stem}.svg": self.alone.encode(), f"{stem}.pdf": written.getvalue()}


def drawn(figure: Figure, name: str, title: str, caption: str) -> Drawn:
    """Return a figure for the page.

    Args:
        figure: what is drawn, within `STYLE`.
        name: unique in the page; what no id may have becomes a dash.
        title: the finding.
        caption: how it is read.
    """
    name = re.sub(r"[^A-Za-z0-9-]+", "-", name)
    written = io.StringIO()
    with _drawing(STYLE):
        figure.savefig(written, format="svg", metadata=UNSAID["svg"])
    figure.set_layout_engine("none")  # its parts have their places: no second search for them
    text = written.getvalue()
    alone = live.titled(re.sub(r"(<svg[^>]*>)", rf"\1{WHITE}", text, count=1))
    within = svg(text, figure, f"fig-{name}", title, caption)
    return Drawn(name, within, title, caption, alone, figure)


@contextmanager
def _drawing(style: Any) -> Iterator[None]:
    fonts.lighten()
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        yield


def wrapped(name: str, chars: int = LINE_CHARS) -> str:
    """Return a name in lines of so many characters, short enough for an axis."""
    lines = textwrap.wrap(shortened(name, NAME_CHARS).replace("+", "+ "), chars)
    return "\n".join(line.replace("+ ", "+") for line in lines) or "?"


@contextmanager
def panel(height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure of one panel, so many inches high, within `STYLE`."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH_IN, height), layout="constrained")
        yield figure, figure.subplots()


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def svg(text: str, figure: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as SVG to be put into a page, with ids of its own.

    Args:
        text: the SVG that was drawn.
        figure: of which it is.
        name: unique in the page.
        title: the finding.
        description: what is drawn.
    """
    text = text[text.index("<svg") :]
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    inside, told = live.linked(_of_page(text[text.index(">") + 1 :], name), figure)
    role = "group" if told else "img"  # whose parts would not be told
    head = (
        f'<svg id="{name}" role="{role}"{told} aria-labelledby="{name}-t {name}-d" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>'
    )
    return head + inside


def _of_page(text: str, name: str) -> str:
    """Make the inside of an SVG one of the page: its ids, its colours, and no needless digits."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    # The page has its own font.
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "sans-serif", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, text)
    text = text.replace("*{", f"#{name} *{{").replace(INK, "currentColor")
    for number, colour in enumerate(COLOURS, start=1):
        text = text.replace(colour, f"var(--s{number})")
    return text


def _rounded(attribute: re.Match[str]) -> str:
    values = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.5g}", attribute[0])
    return re.sub(r"\s+", " ", values)
