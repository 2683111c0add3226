"""Names of data sets to sources: ``folder:PATH``, ``lsun:PATH#CATEGORY``, ...

A new kind of source is a function ``DataSpec -> Source`` and a row in :data:`KINDS`.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.errors import UserError
from sagan_bench.data.listing import DataSpec, Source
from sagan_bench.data.sources import celeba, cifar, folder, imagenet, lsun, twins


class Kind(NamedTuple):
    """A kind of source: how it is written after ``--data``, and what finds it."""

    usage: str
    open: Callable[[DataSpec], Source]


KINDS: dict[str, Kind] = {
    "twins": Kind("twins", twins.twins),
    "folder": Kind("folder:PATH", folder.folder),
    "celeba": Kind("celeba:PATH", celeba.celeba),
    "lsun": Kind("lsun:PATH#CATEGORY", lsun.lsun),
    "cifar10": Kind("cifar10:PATH", cifar.cifar10),
    "cifar100": Kind("cifar100:PATH", cifar.cifar100),
    "imagenet": Kind("imagenet:PATH", imagenet.imagenet),
}
"""Every kind of source by the name before the colon."""

KNOWN = ", ".join(kind.usage for kind in KINDS.values())


def open_source(spec: DataSpec) -> Source:
    """Find what ``spec`` names; nothing is decoded.

    Raises:
        UserError: No such kind of source, or there is nothing at its path.
    """
    kind, _, argument = spec.source.partition(":")
    if kind not in KINDS:
        raise UserError(f"unknown data {spec.source!r}; known: {KNOWN}{_suggestion(spec.source)}")
    if (":" in KINDS[kind].usage) != bool(argument):
        raise UserError(f"data {spec.source!r} is not complete or says too much; known: {KNOWN}")
    return KINDS[kind].open(spec)


def _suggestion(source: str) -> str:
    if Path(source).expanduser().is_dir():
        return f"; did you mean 'folder:{source}'?"
    close = difflib.get_close_matches(source.partition(":")[0].lower(), KINDS, n=1)
    return f"; did you mean {KINDS[close[0]].usage!r}?" if close else ""
