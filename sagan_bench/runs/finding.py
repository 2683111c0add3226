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

    Linked folders are looked into, and a run that two names lead to is taken once, by the name
    that is no link's if there is one.

    Raises:
        UserError: There are too many folders to look into.
    """
    followed = set[str]()
    paths = sorted(_walk(root, followed))
    if not followed:
        return paths
    top, runs = os.path.realpath(root), dict[str, Path]()
    for path in paths:
        real = os.path.realpath(path)
        if real not in runs or real == os.path.join(top, path.relative_to(root)):
            runs[real] = path
    return sorted(runs.values())


def holds_runs(root: Path) -> bool:
    """Return whether a run is at or below ``root``.  Raises `UserError` as `find_runs`."""
    return next(_walk(root, set()), None) is not None


def _walk(root: Path, followed: set[str]) -> Iterator[Path]:
    """Yield each run directory, and note where links have been ``followed`` to.

    A link is followed unless it leads back: to where one has led before, or above ``root``.
    """
    top, without = os.path.realpath(root), 0

    def leads_on(path: str) -> bool:
        """Return whether a folder is no link, or one to somewhere new."""
        if not os.path.islink(path):
            return True
        target = os.path.realpath(path)
        leads_back = target in followed or f"{top}/".startswith(f"{target.rstrip('/')}/")
        followed.add(target)
        return not leads_back

    for folder, folders, files in os.walk(root, followlinks=True, onerror=_warn):
        if RECORD in (*folders, *files):
            yield Path(folder)
            folders.clear()
            continue
        without += 1
        if without > MOST_FOLDERS:
            raise UserError(
                f"more than {MOST_FOLDERS:,} folders without a run are below {root}; name the "
                "folder of the runs"
            )
        seen = (name for name in folders if name[0] != "." and not _MOVED_ASIDE.search(name))
        folders[:] = [name for name in seen if leads_on(os.path.join(folder, name))]


def _warn(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        _log.warning("not looked into: %s: %s", error.filename, error.strerror)
