"""All pictures below folders as images in memory, by the same rules as data are prepared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sagan_bench.core.errors import UserError
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.data.checks import named
from sagan_bench.data.decoding import Geometry, Pixels, size_of
from sagan_bench.data.listing import at_most, printable, ranked, spans
from sagan_bench.data.sources._class_folders import read_files
from sagan_bench.data.sources._scanning import scan

_AT_A_TIME = 256


def listed(root: Path, most: int | None = None) -> list[str]:
    """Return the names of the pictures below a folder, whatever its layout.

    They are in the order of their hashes: the first ``most`` are a fair sample of all.

    Raises:
        UserError: there is no such folder, or it has no picture, or fewer.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give one with pictures in it")
    names = ranked(scan(root).names)
    return names[: at_most(len(names), most, "generated", str(root))]


def common_size(folders: Sequence[tuple[Path, Sequence[str]]]) -> int:
    """Return the side of all pictures, which are squares of one size.

    Raises:
        UserError: they are not.
    """
    first: tuple[str, int] | None = None
    for root, names in folders:
        for name in names:
            if (size := size_of(root / name)) is None:
                continue  # whoever reads it says why
            where = f"{root}/{printable(name)}"
            first = first or (where, size[0])
            if size != (first[1], first[1]):
                raise UserError(
                    f"pictures of different sizes, or not square: {where} has {size[0]} x {size[1]}"
                    f" pixels, and {first[0]} is {first[1]} wide; bring all to one, or use "
                    "`score --size SIDE`, which does"
                )
    if first is None:
        raise UserError(f"no picture in {folders[0][0]} can be read")
    return first[1]


def read(
    root: Path, names: Sequence[str], geometry: Geometry, progress: OnProgress = unwatched
) -> Pixels:
    """Return pictures of a folder, uint8 (N, 3, S, S).

    Raises:
        UserError: some cannot be read: which, and why.
    """
    images = np.empty((len(names), 3, geometry.size, geometry.size), np.uint8)
    refused, done = list[str](), 0
    for span in spans(len(names), _AT_A_TIME):
        some = list(names[span])
        chunk = read_files(str(root), some, [0] * len(some), geometry)
        images[done : done + len(chunk.images)] = chunk.images
        done += len(chunk.images)
        refused += chunk.refused
        progress(span.stop, len(names))
    if refused:
        which = named(refused, len(refused))
        raise UserError(f"{len(refused)} of {len(names)} pictures in {root} cannot be read{which}")
    return images
