"""What lies below a folder: its pictures, whatever they are called, and what is passed over.

A usual ending makes a picture without a look inside. Of each other ending the first few files are
looked into, and all of them once one is a picture: a tree of text files costs no reading.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import RESIZE, looks_like_a_picture
from sagan_bench.data.failures import failure
from sagan_bench.data.listing import DataSpec, digest16, printable

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
)
"""File names that count as pictures, in any case."""

_RARER_EXTENSIONS = frozenset((
    ".jpe", ".jfif", ".jif", ".jfi", ".mpo", ".apng", ".dib", ".pbm", ".pnm", ".avif", ".jp2",
    ".j2k", ".jpc", ".jpf", ".jpx", ".ico", ".dds", ".tga", ".psd", ".qoi", ".pcx",
))  # fmt: skip
"""Pictures too, of which a remark is made: other programs pass them over."""

_ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst"))

_NOT_DATA = frozenset((
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx",
    "$recycle.bin", "system volume information", "lost+found", "_vti_cnf", "__pycache__",
))  # fmt: skip
"""Folders, in small letters, in which file servers and systems keep thumbnails and rubbish."""

_LOOKED_INTO = 8  # files of an unusual ending, before all of it are passed over


class File(NamedTuple):
    """A file below a root: its relative name with ``/``, its bytes, its time of change."""

    name: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, name: str, facts: os.stat_result) -> Self:
        """Return what the system knows of a file under a name."""
        return cls(name, facts.st_size, facts.st_mtime_ns)


class Scan(NamedTuple):
    """The pictures below a root, sorted by name, and in words what else there was."""

    files: list[File]
    remarks: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of the pictures."""
        return [file.name for file in self.files]


def scan(root: Path) -> Scan:
    """Return every picture below ``root``.

    Names that start with a dot are skipped, and so is what :data:`_NOT_DATA` names.

    Raises:
        UserError: There is no such folder, it cannot be read, or it holds no picture.
    """
    check_folder(root)
    walk = _Walk()
    try:
        walk.enter(str(root), "", ())
    except OSError as error:
        raise failure(error, error.filename) or UserError(
            f"{error.filename} cannot be read: {error.strerror}"
        ) from error
    walk.look_into_the_rest(root)
    if not walk.files:
        kinds = " ".join(sorted(extension[1:] for extension in EXTENSIONS))
        beside = "".join(f"; {remark}" for remark in walk.remarks())
        raise UserError(f"no pictures in {root} or below it; looked for {kinds}{beside}")
    return Scan(sorted(walk.files), walk.remarks())


def check_folder(root: Path, fetched_as: str | None = None) -> None:
    """Raise `UserError` unless ``root`` is a folder; ``fetched_as`` is what can be downloaded."""
    try:
        is_there = root.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise UserError(f"{str(root)[:200]!r} can be no folder: {error}") from error
    if not is_there:
        fetch = f", or fetch it: data download {fetched_as} {root}" if fetched_as else ""
        raise UserError(f"there is no folder {root}; check the path after the colon{fetch}")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give the folder that holds the data")


def is_not_data(name: str) -> bool:
    """Return whether a folder of this name is a system's, not a user's."""
    return name.startswith(".") or name.lower() in _NOT_DATA


class _Walk:
    """One walk below a root, and what it met."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.unusual: defaultdict[str, list[str]] = defaultdict(list)
        """Names of pictures, by an ending for which other programs may pass them over."""
        self.others: defaultdict[str, list[str]] = defaultdict(list)
        """Names that do not say what they are, by ending."""
        self.hidden: list[str] = []
        self.not_data: list[str] = []

    def enter(self, path: str, prefix: str, above: tuple[str, ...]) -> None:
        """Take up all that is below ``path``; ``above`` are the folders that lead there."""
        here = os.path.realpath(path)
        if here in above:  # a link that leads back up
            return
        with os.scandir(path) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    self.hidden.append(name)
                elif not entry.is_dir():
                    self._meet(entry, name)
                elif is_not_data(entry.name):
                    self.not_data.append(name)
                else:
                    self.enter(entry.path, f"{name}/", (*above, here))

    def _meet(self, entry: os.DirEntry[str], name: str) -> None:
        is_broken_link = entry.is_symlink() and not os.path.exists(entry.path)
        if not (entry.is_file() or is_broken_link):
            return  # a pipe or a device: even a look at it may wait for ever
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in _RARER_EXTENSIONS:
            self.unusual[ending].append(name)
        elif ending not in EXTENSIONS:
            self.others[ending].append(name)
            return
        # A broken link is listed too: reading it refuses it by name.
        self.files.append(File.of(name, entry.stat(follow_symlinks=entry.is_file())))

    def look_into_the_rest(self, root: Path) -> None:
        """Take the pictures among the files of other endings, and keep what is passed over."""
        for ending, names in self.others.items():
            names.sort()
            pictures = _pictures(root, names[:_LOOKED_INTO])
            if pictures or not ending:  # names without an ending say nothing of one another
                pictures += _pictures(root, names[_LOOKED_INTO:])
            self.files += pictures
            self.unusual[ending] += [file.name for file in pictures]
            self.others[ending] = sorted(set(names) - set(self.unusual[ending]))

    def remarks(self) -> tuple[str, ...]:
        """Say what was read and what was passed over though a reader may not expect it."""
        packed = {end: names for end, names in self.others.items() if end in _ARCHIVES}
        other = {end: names for end, names in self.others.items() if end not in _ARCHIVES}
        folders = _counted(self.not_data, "folders of file servers and systems")
        remarks = {
            "read under unusual endings": _by_ending(self.unusual),
            "passed over, no pictures by ending or content": _by_ending(other),
            "passed over, archives left packed": _by_ending(packed),
            "passed over": [*folders, *_counted(self.hidden, "hidden")],
        }
        return tuple(f"{what}: {', '.join(words)}" for what, words in remarks.items() if words)


def _pictures(root: Path, names: Sequence[str]) -> list[File]:
    """Return those of the files that are pictures by their content."""
    pictures = (name for name in names if looks_like_a_picture(root / name))
    return [File.of(name, (root / name).stat()) for name in pictures]


def _by_ending(files: dict[str, list[str]]) -> list[str]:
    """Count names by ending, the most first."""
    order = sorted(files.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        f"{len(names)} {printable(ending) or 'without an ending'} (as {printable(min(names))})"
        for ending, names in order
        if names
    ]


def _counted(names: list[str], what: str) -> list[str]:
    return [f"{len(names)} {what} (as {printable(min(names))})"] if names else []


def files_key(spec: DataSpec, root: Path, files: Iterable[File], *more: str) -> str:
    """Return a key that changes with place, names, sizes and times of files, and what is wanted."""
    # The path is in the key, though in no fingerprint: unpacked archives can agree in names, sizes
    # and times and still hold other pictures.
    listing = hashlib.sha256(os.fsencode(root.resolve()))
    for file in files:
        listing.update(os.fsencode(f"\0{file.name}\0{file.size}\0{file.mtime_ns}"))
    return digest16([spec.kind, listing.hexdigest(), RESIZE, *spec.cache_fields, *more])
