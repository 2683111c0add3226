"""LSUN as its authors publish it: one LMDB directory of encoded pictures for each category."""

import os
import struct
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import lmdb

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.decoding import Chunk, Geometry, decode
from sagan_bench.data.failures import failure
from sagan_bench.data.listing import (
    DataSpec,
    Listing,
    Part,
    first_of,
    hold_out,
    printable,
    ranked,
    some,
    spans,
)
from sagan_bench.data.sources._base import Archive, Published, Source
from sagan_bench.data.sources._scanning import File, check_folder, files_key
from sagan_bench.data.workers import decoding_processes, start_worker

_DATA = "data.mdb"
_PICTURES_A_TASK = 64


@SOURCES.register("lsun")
class Lsun(Source):
    """A category, e.g. ``lsun:PATH#church_outdoor_train``.

    ``church_outdoor_val`` beside it is the test split; without one a tenth is held out by the hash
    of the key. There is one class.
    """

    usage = "lsun:PATH#CATEGORY"
    elsewhere = None
    cites = ("yu2015lsun",)
    fragile = True
    categories = (
        "bedroom", "bridge", "church_outdoor", "classroom", "conference_room", "dining_room",
        "kitchen", "living_room", "restaurant", "tower",
    )  # fmt: skip

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        root, self.selection = spec.selected
        check_folder(root, self.name)
        self.train = _directory(root, self.selection)
        beside = self.train.with_name(self.train.name.replace("_train", "_val"))
        self.test = beside if beside != self.train and (beside / _DATA).is_file() else None
        folders = [folder for folder in (self.train, self.test) if folder]
        files = [File.of(folder.name, (folder / _DATA).stat()) for folder in folders]
        self.key = files_key(spec, root, files)

    @classmethod
    def published(cls, category: str | None) -> Published:
        """Return the two splits of a category, by default of ``church_outdoor``."""
        category = category or "church_outdoor"
        if category not in cls.categories:
            known = ", ".join(cls.categories)
            raise UserError(f"--category {category}: LSUN publishes no such scenes; known: {known}")
        url = "http://dl.yf.io/lsun/scenes/"
        folders = [f"{category}_{split}_lmdb" for split in ("val", "train")]
        return Published(
            archives=tuple(
                Archive(f"{folder}.zip", f"{url}{folder}.zip", None, 0, folder)
                for folder in folders
            ),
            page="https://www.yf.io/p/lsun",
            source=f"lsun:{{root}}#{category}_train",
        )

    def listing(self) -> Listing:
        """Return the pictures by their keys."""
        spec, train, test = self.spec, self.train, self.test
        if test:
            train_keys, test_keys = ranked(_keys(train)), ranked(_keys(test))
            rule = f"{train.name} for training, {test.name} for testing"
        else:
            train_keys, test_keys, rule = hold_out(_keys(train))
        train_keys = first_of(train_keys, spec.train_images, "training", train)
        test_keys = first_of(test_keys, spec.test_images, "test", test or train)
        return Listing(
            classes=(train.name.removesuffix("_lmdb").removesuffix("_train"),),
            train=_part(train, train_keys, spec.geometry),
            test=_part(test or train, test_keys, spec.geometry) if test_keys else None,
            split_rule=rule,
        )


def _directory(root: Path, category: str | None) -> Path:
    there = sorted(path.parent.name for path in root.glob(f"*/{_DATA}"))
    for name in (f"{category}_lmdb", category):
        if name in there:
            return root / str(name)
    if not there:
        raise UserError(f"{root} holds no LMDB directory such as church_outdoor_train_lmdb/{_DATA}")
    choices = some([f"lsun:{root}#{name.removesuffix('_lmdb')}" for name in there], 12)
    said = f"no category {category!r} in {root}" if category else "say which category"
    raise UserError(f"{said}; there are: {choices}")


def _keys(directory: Path) -> list[str]:
    """Return the keys of a database, read by a process of its own: damage may end that by a signal.

    Raises:
        UserError: The database is damaged or empty.
    """
    check_database(directory / _DATA)
    try:
        with ProcessPoolExecutor(1, decoding_processes(), initializer=start_worker) as pool:
            keys, entries = pool.submit(read_keys, str(directory)).result()
    except BrokenProcessPool as error:
        raise UserError(
            f"{directory} is damaged: a process that reads it is killed; fetch it again"
        ) from error
    except (lmdb.Error, OSError) as error:
        raise failure(error, directory) or UserError(
            f"{directory} is damaged: {error}; fetch it again"
        ) from error
    if len(keys) != entries:
        said = f"of its {entries} entries {len(keys)} are found"
        raise UserError(f"{directory} is damaged: {said}; fetch it again")
    if not keys:
        raise UserError(f"{directory} holds no pictures")
    return keys


def read_keys(directory: str) -> tuple[list[str], int]:
    """Return the keys of a database as if they were names of files, and how many it says it has."""
    with _open(directory).begin() as transaction:
        keys = [os.fsdecode(bytes(key)) for key in transaction.cursor().iternext(values=False)]
        return keys, transaction.stat()["entries"]


# --- the file of a database, before it is mapped ------------------------------------------------

_META = struct.Struct("=16x II QQ 48x 48x QQ")  # of a 64-bit LMDB, behind the header of the page
_PAGE_SIZE_AT = 40  # where the first of the two 48-byte tables begins
_MAGIC, _VERSIONS = 0xBEEFC0DE, (1, 999)
_PAGE_SIZES = [2**power for power in range(8, 17)]


def check_database(path: Path) -> None:
    """Raise `UserError` unless ``path`` is an LMDB file, and as long as it says itself.

    A map that goes beyond the end of its file ends the process by a signal when it is read.
    """
    try:
        with path.open("rb") as file:
            size, needed = os.fstat(file.fileno()).st_size, _needed(file)
    except OSError as error:
        raise failure(error, path) or UserError(
            f"{path} cannot be read: {error.strerror}"
        ) from error
    if needed is None:
        raise UserError(f"{path.parent} is damaged: {path.name} is no LMDB file; fetch it again")
    if size < needed:
        raise UserError(
            f"{path.parent} is damaged: {path.name} has {size} bytes, its database {needed}; fetch "
            "it again, or look whether the disk was full when it was copied"
        )


def _needed(file: BinaryIO) -> int | None:
    """Return the bytes of the newest database in a file; None if there is none."""
    head = file.read(_META.size)
    if len(head) < _META.size:
        return None
    page = struct.unpack_from("=I", head, _PAGE_SIZE_AT)[0]
    if page not in _PAGE_SIZES:
        return None
    file.seek(page)
    metas = [
        _META.unpack(part) for part in (head, file.read(_META.size)) if len(part) == _META.size
    ]
    if any(meta[0] != _MAGIC or meta[1] not in _VERSIONS for meta in metas):
        return None
    newest = max(metas, key=lambda meta: meta[5])
    return (newest[4] + 1) * page


# --- reading ------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _open(directory: str) -> lmdb.Environment:
    # Once a process, which LMDB asks for; without its lock file a read-only disk will do.
    try:
        return lmdb.open(directory, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        if error.code > 0:  # not one of LMDB's own
            raise OSError(error.code, os.strerror(error.code), directory) from error
        raise


def _part(directory: Path, keys: list[str], geometry: Geometry) -> Part:
    tasks = [
        partial(read_lmdb, str(directory), keys[span], geometry)
        for span in spans(len(keys), _PICTURES_A_TASK)
    ]
    return Part(len(keys), tasks)


def read_lmdb(directory: str, keys: list[str], geometry: Geometry) -> Chunk:
    """Decode the pictures of ``keys``; those that cannot be read are named with the reason."""
    with _open(directory).begin(buffers=False) as transaction:
        pictures = (
            (printable(key), transaction.get(os.fsencode(key), default=b"")) for key in keys
        )
        return decode(pictures, [0] * len(keys), geometry)
