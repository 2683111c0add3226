"""What points and curves of a figure say of themselves when pointed at, focused or touched.

An artist carries it as its URL, which matplotlib writes as a link around what it draws.  In a page
the link leads to the run or variant; a script shows what it says beside it, and where there is no
script the browser does.
"""

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote, unquote

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SCHEME = "told:"
_LINK = re.compile(rf'<a xlink:href="{SCHEME}([^"]*)"[^>]*>')


def tell(line: Line2D, text: str, target: str = "", steps: Sequence[int] = ()) -> None:
    """Let what is drawn say a text, and lead to a place in the page.

    Args:
        line: a point, an interval, or a curve.
        text: what it is.
        target: id of the place; none if empty.
        steps: of a curve, those of its points: the script adds step and value of the nearest.
    """
    told: list[Any] = [text, target]
    if steps and isinstance(line.figure, Figure):
        told += [[*steps], [*line.figure.axes].index(line.axes)]  # type: ignore[arg-type]
    line.set_url(SCHEME + quote(json.dumps(told)))


def titled(svg: str) -> str:
    """Return an SVG that stands alone, in which whatever says something has it as its title."""

    def group(found: re.Match[str]) -> str:
        return f"<g><title>{escape(_told(found)[0])}</title>"

    return _LINK.sub(group, svg).replace("</a>", "</g>")


def linked(svg: str, figure: Figure) -> tuple[str, str]:
    """Return the SVG of a page, in which whatever says something is a link, and its attributes.

    These are for the script: the distinct lists of steps of the curves, and for each pair of axes
    the value at the upper edge of the figure, and how much it changes with each point of height.
    """
    told = [_told(found) for found in _LINK.finditer(svg)]
    lists = list(dict.fromkeys(json.dumps(steps) for _, _, steps, _ in filter(_is_curve, told)))

    def link(found: re.Match[str]) -> str:
        text, target, *curve = _told(found)
        leads = f'href="#{escape(target)}"' if target else 'tabindex="0"'
        if curve:
            leads += f' data-steps="{lists.index(json.dumps(curve[0]))}" data-axes="{curve[1]}"'
        return f'<a class="told" {leads}><title>{escape(text)}</title>'

    given = ' data-live=""' if told else ""
    if lists:
        scales = json.dumps([_scale(figure, axes) for axes in range(len(figure.axes))])
        given += f' data-steps="[{", ".join(lists)}]" data-scales="{scales}"'
    return _LINK.sub(link, svg), given


def _is_curve(told: Sequence[Any]) -> bool:
    return len(told) > 2


def _told(found: re.Match[str]) -> list[Any]:
    told: list[Any] = json.loads(unquote(found[1]))
    return told


def _scale(figure: Figure, axes: int) -> list[float]:
    edges = figure.transFigure.transform([(0, 1), (0, 0)])
    (_, top), (_, bottom) = figure.axes[axes].transData.inverted().transform(edges)
    height = 72 * figure.get_figheight()
    return [float(f"{value:.8g}") for value in (top, (bottom - top) / height)]
