"""Where runs are: the run directories at or below a folder."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.runs.records import RECORD

MOST_FOLDERS = 20_000
"""Without a run of their own, that are looked into for runs."""
_MOVED_ASIDE = re.compile(r"\.old-\d+$")
_log = logging.getLogger(__name__)


def find_runs(root: Path) -> list[Path]:
    """Return the run directories at or below ``root``, sorted; those moved aside are left out.

    Linked folders are looked into, and a run that two names lead to is found once.

    Raises:
        UserError: There are too many folders to look into.
    """
    plain, linked = list[Path](), list[Path]()
    for path, is_linked in _walk(root):
        (linked if is_linked else plain).append(path)
    if linked:
        known = {os.path.realpath(path): path for path in sorted(linked, reverse=True)}
        for path in plain:
            known.pop(os.path.realpath(path), None)
        plain += known.values()
    return sorted(plain)


def holds_runs(root: Path) -> bool:
    """Return whether a run is at or below ``root``.  Raises `UserError` as `find_runs`."""
    return next(_walk(root), None) is not None


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each run directory, and whether a link below ``root`` led to it.

    A link is followed unless it leads back: to where one has been followed to, or above ``root``.
    """
    top = os.path.realpath(root)
    followed = set[str]()
    waiting, looked = [(str(root), False)], 0
    while waiting:
        folder, is_linked = waiting.pop()
        entries = _entries(folder)
        if any(entry.name == RECORD for entry in entries):
            yield Path(folder), is_linked
            continue
        looked += 1
        if looked > MOST_FOLDERS:
            raise UserError(
                f"more than {MOST_FOLDERS:,} folders without a run are below {root}; name the "
                "folder of the runs"
            )
        for entry in entries:
            if not _is_folder(entry):
                continue
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if target in followed or f"{top}/".startswith(f"{target.rstrip('/')}/"):
                    continue
                followed.add(target)
            waiting.append((entry.path, is_linked or entry.is_symlink()))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _log.warning("not looked into: %s: %s", folder, error.strerror)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether runs may be in it."""
    if entry.name[0] == "." or _MOVED_ASIDE.search(entry.name):
        return False
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
