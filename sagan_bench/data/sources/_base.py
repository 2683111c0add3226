"""What every kind of data is: how it is written, where it is published, and what finds it."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import Geometry
from sagan_bench.data.listing import DataSpec, Listing


class Archive(NamedTuple):
    """One file to fetch: its name, where it is, its MD5 if published, its size, what it becomes.

    ``holds`` is the name of what it unpacks to, or None for a file that is used as it is.
    """

    name: str
    url: str
    md5: str | None
    about_mib: int
    holds: str | None


class Published(NamedTuple):
    """The archives of one data set, the page for a person, and what ``--data`` takes afterwards."""

    archives: tuple[Archive, ...]
    page: str
    source: str


class Source(ABC):
    """One data set as one :class:`DataSpec` wants it: found when made, listed to build its store.

    ``key`` names the prepared store in the cache: it changes with the source and what is wanted.
    ``geometry`` is None where images are made at the wanted size; threads are then enough to make
    them, while pictures are decoded by processes. ``definition`` holds all that determines the
    images where that is known without reading any. ``selection`` is the category or attribute that
    the spec names. ``remarks`` say what was passed over where the source was found.

    Raises:
        UserError: There is no such data set, or it is unclear.
    """

    name: ClassVar[str]
    """What stands before the colon; the registry sets it."""
    usage: ClassVar[str]
    """How it is written after ``--data``."""
    auto_crop_px: ClassVar[int | None] = None
    """Side of the centre crop where ``data.crop`` is ``auto``; None is no crop."""
    fragile: ClassVar[bool] = False
    """Whether damage may end its reader by a signal: other processes read it."""
    categories: ClassVar[tuple[str, ...]] = ()
    """The parts in which it is published."""
    elsewhere: ClassVar[str | None] = "it is not published: put it into a folder, and use --data"
    """What to do instead of fetching it; None if it can be fetched."""
    cites: ClassVar[tuple[str, ...]] = ()
    """What a paper cites that uses it: keys of ``report/references.bib``, or BibTeX entries."""

    key: str
    definition: dict[str, int] | None = None
    selection: str | None = None
    remarks: tuple[str, ...] = ()

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.geometry: Geometry | None = spec.geometry

    @abstractmethod
    def listing(self) -> Listing:
        """Return its classes, splits and tasks.  Raises `UserError` where they are unclear."""

    @classmethod
    def published(cls, category: str | None) -> Published:
        """Return what can be fetched, of a category if there are any.

        Raises:
            UserError: Nothing can, and what to do instead; or there is no such category.
        """
        raise UserError(f"{cls.elsewhere}")
