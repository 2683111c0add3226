"""LSUN as its authors publish it: one LMDB directory of encoded pictures for each category."""

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import lmdb
import numpy as np

from sagan_bench.data.decoding import Geometry, decode
from sagan_bench.data.listing import (
    Chunk,
    DataSpec,
    Listing,
    Part,
    Source,
    at_most,
    hold_out,
    ranked,
    some,
)
from sagan_bench.data.sources.folder import File, check_folder, files_key
from sagan_bench.errors import UserError

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
        train_keys, test_keys = ranked(list(_keys(train))), ranked(list(_keys(test)))
        rule = f"{train.name} for training, {test.name} for testing"
    else:
        train_keys, test_keys, rule = hold_out(list(_keys(train)))
    train_keys = train_keys[: at_most(len(train_keys), spec.train_images, "training", str(train))]
    test_keys = test_keys[: at_most(len(test_keys), spec.test_images, "test", str(test or train))]
    name = train.name.removesuffix("_lmdb").removesuffix("_train")
    return Listing(
        classes=(name,),
        train=_part(train, train_keys, spec.geometry),
        test=_part(test or train, test_keys, spec.geometry) if test_keys else None,
        split_rule=rule,
    )


def _keys(directory: Path) -> Iterator[str]:
    try:
        with _open(str(directory)).begin() as transaction:
            keys = [key.decode("ascii") for key in transaction.cursor().iternext(values=False)]
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise UserError(f"{directory} is damaged: {error}; fetch it again") from error
    if not keys:
        raise UserError(f"{directory} holds no pictures")
    yield from keys


@lru_cache(maxsize=2)
def _open(directory: str) -> lmdb.Environment:
    # Once a process, which LMDB asks for; without its lock file a read-only disk will do.
    return lmdb.open(directory, readonly=True, lock=False, readahead=False)


def _part(directory: Path, keys: list[str], geometry: Geometry) -> Part:
    spans = (
        keys[start : start + _PICTURES_A_TASK] for start in range(0, len(keys), _PICTURES_A_TASK)
    )
    return Part(len(keys), [partial(read_lmdb, str(directory), span, geometry) for span in spans])


def read_lmdb(directory: str, keys: list[str], geometry: Geometry) -> Chunk:
    """Decode the pictures of ``keys``; those that cannot be read are named with the reason."""
    with _open(directory).begin(buffers=False) as transaction:
        pictures = ((key, transaction.get(key.encode(), default=b"")) for key in keys)
        done = decode(pictures, len(keys), geometry)
    labels = np.zeros(len(done.images), np.int64)
    return Chunk(done.images, labels, done.refused, done.enlarged)
