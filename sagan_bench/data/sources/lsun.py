"""LSUN as its authors publish it: one LMDB directory of encoded pictures for each category."""

import os
import struct
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import lmdb
import numpy as np

from sagan_bench.core.errors import UserError
from sagan_bench.data.decoding import Geometry, decode, decoding_processes, start_worker
from sagan_bench.data.failures import failure
from sagan_bench.data.listing import (
    Chunk,
    DataSpec,
    Listing,
    Part,
    Source,
    at_most,
    hold_out,
    printable,
    ranked,
    some,
)
from sagan_bench.data.sources.scanning import File, check_folder, files_key

_DATA = "data.mdb"
_PICTURES_A_TASK = 64


def lsun(spec: DataSpec) -> Source:
    """Find a category, e.g. ``lsun:PATH#church_outdoor_train``.

    ``church_outdoor_val`` beside it is the test split; without one a tenth is held out by the hash
    of the key. There is one class.
    """
    root, category = spec.selected
    check_folder(root, "lsun")
    train = _directory(root, category)
    beside = train.with_name(train.name.replace("_train", "_val"))
    test = beside if beside != train and (beside / _DATA).is_file() else None
    files = [_facts(directory) for directory in (train, test) if directory]
    return Source(
        kind="lsun",
        image_size=spec.image_size,
        key=files_key(spec, root, files),
        listing=partial(_listing, spec, train, test),
        geometry=spec.geometry,
        selection=category,
        fragile=True,
    )


def _directory(root: Path, category: str | None) -> Path:
    found = sorted(path.parent.name for path in root.glob(f"*/{_DATA}"))
    for name in (f"{category}_lmdb", category):
        if name in found:
            return root / str(name)
    if not found:
        raise UserError(f"{root} holds no LMDB directory such as church_outdoor_train_lmdb/{_DATA}")
    choices = some([f"lsun:{root}#{name.removesuffix('_lmdb')}" for name in found], 12)
    said = f"no category {category!r} in {root}" if category else "say which category"
    raise UserError(f"{said}; there are: {choices}")


def _facts(directory: Path) -> File:
    facts = (directory / _DATA).stat()
    return File(directory.name, facts.st_size, facts.st_mtime_ns)


def _listing(spec: DataSpec, train: Path, test: Path | None) -> Listing:
    if test:
        train_keys, test_keys = ranked(_keys(train)), ranked(_keys(test))
        rule = f"{train.name} for training, {test.name} for testing"
    else:
        train_keys, test_keys, rule = hold_out(_keys(train))
    train_keys = train_keys[: at_most(len(train_keys), spec.train_images, "training", str(train))]
    test_keys = test_keys[: at_most(len(test_keys), spec.test_images, "test", str(test or train))]
    name = train.name.removesuffix("_lmdb").removesuffix("_train")
    return Listing(
        classes=(name,),
        train=_part(train, train_keys, spec.geometry),
        test=_part(test or train, test_keys, spec.geometry) if test_keys else None,
        split_rule=rule,
    )


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
    spans = (
        keys[start : start + _PICTURES_A_TASK] for start in range(0, len(keys), _PICTURES_A_TASK)
    )
    return Part(len(keys), [partial(read_lmdb, str(directory), span, geometry) for span in spans])


def read_lmdb(directory: str, keys: list[str], geometry: Geometry) -> Chunk:
    """Decode the pictures of ``keys``; those that cannot be read are named with the reason."""
    with _open(directory).begin(buffers=False) as transaction:
        pictures = (
            (printable(key), transaction.get(os.fsencode(key), default=b"")) for key in keys
        )
        done = decode(pictures, len(keys), geometry)
    labels = np.zeros(len(done.images), np.int64)
    return Chunk(done.images, labels, done.refused, done.enlarged)
