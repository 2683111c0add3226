"""What a section of a report is, and the parts of which its place in the page is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, Literal

from sagan_bench.core.registry import SECTIONS
from sagan_bench.experiments.tuning.definition import untuned
from sagan_bench.report.claims import Claim
from sagan_bench.report.document import AnyDocument, LengthsDocument, TuningDocument
from sagan_bench.report.frames import Frame
from sagan_bench.report.pictures import Shown
from sagan_bench.report.svg import Drawn, Theme, looks
from sagan_bench.report.text import Tone

Kind = Literal["study", "lengths", "tuning"]


@dataclass(frozen=True)
class Text:
    """A paragraph; ``css`` is its class."""

    text: str
    css: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading within a section; with an id, it can be linked to."""

    text: str
    id: str = ""


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""

    text: str


@dataclass(frozen=True)
class Terms:
    """Terms and what is said of them; ``marked`` by the marks of variants."""

    pairs: Sequence[tuple[str, str]]
    css: str
    marked: bool = False


@dataclass(frozen=True)
class Shares:
    """Names and their shares of a whole."""

    shares: Mapping[str, float]


@dataclass(frozen=True)
class Charts:
    """Figures beside each other."""

    charts: Sequence[Drawn]


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other."""

    pictures: Sequence[Shown]
    maps: bool = False


@dataclass(frozen=True)
class Film:
    """The frames over training of the pictures before it, shown on demand."""

    frames: Sequence[Shown]
    maps: bool = False

    def by_picture(self) -> dict[str, list[Shown]]:
        """Return the frames of each picture."""
        return {of: [*group] for of, group in groupby(self.frames, lambda frame: frame.of)}


@dataclass(frozen=True)
class Fold:
    """Parts that are shown on demand; ``id`` as of a heading."""

    summary: str
    parts: "Sequence[Part]"
    id: str = ""


@dataclass(frozen=True)
class Verdict:
    """Claims, how sure a single one is, and what to know before believing them."""

    claims: Sequence[Claim]
    sure: str | None
    warnings: Sequence[str]


Part = Text | Heading | Code | Terms | Shares | Charts | Frame | Pictures | Film | Fold | Verdict


@dataclass(frozen=True)
class Export:
    """Files to take away that belong together: name -> content, and what is in them."""

    files: Mapping[str, str]
    about: str


@dataclass(frozen=True)
class Block:
    """What a section says in the page.

    Attributes:
        id: unique in the page.
        title: its heading.
        parts: in order; what is empty is left out.
        nav: its name in the list of sections; the title if empty.
        look: variant whose mark stands before the title.
        tone: of the answer.
        exports: its files.
    """

    id: str
    title: str
    parts: Sequence[Part]
    nav: str = ""
    look: str | None = None
    tone: Tone = "open"
    exports: Sequence[Export] = field(default=())

    def charts(self) -> Iterator[Drawn]:
        """Yield its figures, those in what is folded too."""
        yield from _charts_in(self.parts)

    def files(self) -> Iterator[Export]:
        """Yield its files and those of its frames."""
        for part in self.parts:
            if isinstance(part, Frame) and part.file:
                yield Export({part.file: part.to_csv()}, part.caption)
        yield from self.exports


def _charts_in(parts: "Sequence[Part]") -> Iterator[Drawn]:
    for part in parts:
        if isinstance(part, Charts):
            yield from part.charts
        elif isinstance(part, Fold):
            yield from _charts_in(part.parts)


class Section(ABC):
    """A section of a report.

    Attributes:
        name: under which it is registered.
        order: of its place in the page.
        title: its heading.
        of: what kinds of report have it.
        fields: whether what it collects are fields of the document, as those of the first reports
            were; else the document holds it under the section's name.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    title: ClassVar[str]
    of: ClassVar[Sequence[Kind]] = ("study", "tuning")
    fields: ClassVar[bool] = False

    def collect(self, source: Any) -> Any:
        """Return what is to be kept of the runs, as plain data.

        Args:
            source: a `sagan_bench.report.collect.Source`.
        """
        return {}

    @abstractmethod
    def render(self, document: Any, theme: Theme) -> Iterator[Block]:
        """Yield what the page shows, of the document alone; nothing if there is nothing to say."""

    def block(self, *parts: Part, **more: Any) -> Block:
        """Return a block under the section's name and title."""
        return Block(**{"id": self.name, "title": self.title, "parts": parts} | more)


def sections(kind: Kind) -> list[Section]:
    """Return the sections of a kind of report in their order."""
    known = (SECTIONS[name] for name in SECTIONS)
    return sorted((of() for of in known if kind in of.of), key=lambda section: section.order)


def theme_of(document: AnyDocument, content: Callable[[str], bytes]) -> Theme:
    """Return how the page of a document looks; ``content`` returns a picture by its name."""
    if isinstance(document, TuningDocument):
        variants = document.findings.variants
        return Theme(looks([*variants, *map(untuned, variants)]), content)
    if isinstance(document, LengthsDocument):
        names = [*document.findings.variants]
    else:
        names = [variant.name for variant in document.findings.variants]
    runs = {(run.variant, run.seed): run.id for run in document.runs}
    return Theme(looks(names), content, runs)


def blocks(document: AnyDocument, theme: Theme) -> list[Block]:
    """Return all that the page shows, the answer first."""
    return [
        block for section in sections(document.kind) for block in section.render(document, theme)
    ]
