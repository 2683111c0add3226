"""What the golden tests hold: how it is stored, compared, and freed of what may differ."""

import csv
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXPECTED = HERE / "expected"
BEGUN = HERE / "begun"
SHOWN = 20
"""Differences that a failure tells."""


def text_of(value: Any) -> str:
    """Return a value as JSON that a human can compare: what fits in a line is a line."""
    return _indented(value, 0) + "\n"


def _indented(value: Any, depth: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(line) + depth < 100:
        return line
    space, end = " " * (depth + 1), " " * depth
    if isinstance(value, list):
        inner = (f"{space}{_indented(one, depth + 1)}" for one in value)
        return "[\n" + ",\n".join(inner) + f"\n{end}]"
    inner = (
        f"{space}{json.dumps(key, ensure_ascii=False)}: {_indented(one, depth + 1)}"
        for key, one in value.items()
    )
    return "{\n" + ",\n".join(inner) + f"\n{end}}}"


def stored(name: str) -> Any:
    """Return what is held under a name below this folder: JSON, or text."""
    content = (HERE / name).read_text(encoding="utf-8")
    return json.loads(content) if name.endswith(".json") else content


def store(name: str, value: Any) -> None:
    """Hold a value under a name below this folder."""
    file = HERE / name
    file.parent.mkdir(parents=True, exist_ok=True)
    text = text_of(value) if name.endswith(".json") else value
    file.write_text(text, encoding="utf-8")


def differences(found: Any, wanted: Any, *, rtol: float = 1e-9, atol: float = 1e-12) -> list[str]:
    """Return where two values differ: numbers beyond a tolerance, all else at all."""
    return list(_differences(found, wanted, "", rtol, atol))


def alike(found: Any, wanted: Any, *, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Fail with the first differences of two values."""
    told = differences(found, wanted, rtol=rtol, atol=atol)
    assert not told, f"{len(told)} differences\n" + "\n".join(told[:SHOWN])


def _differences(found: Any, wanted: Any, where: str, rtol: float, atol: float) -> Iterator[str]:
    if isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            yield f"{where}: {len(found)} entries, not {len(wanted)}"
        found, wanted = dict(enumerate(found)), dict(enumerate(wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**wanted, **found}:
            if key not in found or key not in wanted:
                yield f"{where}/{key}: {'too much' if key in found else 'missing'}"
            else:
                yield from _differences(found[key], wanted[key], f"{where}/{key}", rtol, atol)
    elif _is_number(found) and _is_number(wanted):
        if not math.isclose(found, wanted, rel_tol=rtol, abs_tol=atol):
            yield f"{where}: {found!r}, not {wanted!r}"
    elif type(found) is not type(wanted) or found != wanted:
        yield f"{where}: {str(found)[:200]!r}, not {str(wanted)[:200]!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- Freed of what may differ -------------------------------------------------------------------

SEALS = ("sha256", "files", "pictured")
"""Digests of files with times, speeds or floats of other machines in them."""


def without(value: Any, *keys: str) -> Any:
    """Return a value of JSON without some keys, wherever they are."""
    if isinstance(value, dict):
        return {key: without(one, *keys) for key, one in value.items() if key not in keys}
    return [without(one, *keys) for one in value] if isinstance(value, list) else value


def plain(text: str) -> str:
    """Return text whose lines do not end in blanks, with one line feed at the end."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"


def as_numbers(row: list[str]) -> list[Any]:
    """Return a row of CSV with its numbers as numbers."""
    return [_number(cell) for cell in row]


def _number(cell: str) -> Any:
    return float(cell) if re.fullmatch(r"[-+]?\d+\.\d+(e[-+]?\d+)?", cell) else cell


def rows(text: str) -> list[list[Any]]:
    """Return the rows of CSV."""
    return [as_numbers(row) for row in csv.reader(text.splitlines())]


class Page(HTMLParser):
    """The text that a reader of a page sees, its headings and its ids; of figures their words."""

    SILENT = ("script", "style", "svg", "head")
    BREAKS = (
        "p",
        "li",
        "tr",
        "h1",
        "h2",
        "h3",
        "h4",
        "caption",
        "summary",
        "div",
        "section",
        "figure",
    )

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self._silent: list[str] = []
        self._heading: list[str] | None = None
        self.feed(html)

    @property
    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self.parts).split("\n"))
        return "\n".join(line for line in lines if line) + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id") and "svg" not in self._silent:
            self.ids.append(str(found["id"]))
        if tag in self.SILENT:
            self._silent.append(tag)
        if tag == "title" and self._silent == ["svg"]:
            self._silent = []
            self.parts.append("\n[figure: ")
        if tag == "img":
            self.parts.append(f"\n[picture: {found.get('alt') or ''}]\n")
        if tag in self.BREAKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        if re.fullmatch("h[1-6]", tag) and not self._silent:
            self._heading = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and not self._silent:
            self._silent = ["svg"]
            self.parts.append("]\n")
        elif self._silent and tag == self._silent[-1]:
            self._silent.pop()
        if self._heading is not None and re.fullmatch("h[1-6]", tag):
            self.headings.append(f"{tag} {' '.join(''.join(self._heading).split())}")
            self._heading = None
        if tag in self.BREAKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        self.parts.append(data)
        if self._heading is not None:
            self._heading.append(data)
