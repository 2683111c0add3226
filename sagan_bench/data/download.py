"""Data sets from those who publish them: fetched, verified, unpacked in one step, recorded.

What the publisher gives no checksum for is marked unverified in ``downloads.json``, which records
every archive with its SHA-256. A file that a person has put into the folder by hand is used.
"""

import errno
import hashlib
import json
import logging
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from filelock import Timeout

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, json_bytes
from sagan_bench.core.locks import described, holding
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.fetching import fetch, version_file
from sagan_bench.data.sources._base import Archive

RECORD = "downloads.json"

_BLOCK = 2**20
_SMALL, _MOST_TIMES = 2**30, 20
"""Bytes that an archive may unpack to whatever its size, and else how many times that."""
_MOST_MEMBERS = 5_000_000
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_logger = logging.getLogger(__name__)


def download(
    name: str, root: Path, *, category: str | None = None, progress: OnProgress = unwatched
) -> str:
    """Put a data set into ``root`` and return what ``--data`` takes for it.

    What is there already is left alone; what was broken off goes on.

    Raises:
        UserError: no such data set; the source refuses, is out of reach or serves something else;
            the disk is full; or another process is at it.
    """
    if name not in SOURCES:
        known = ", ".join(kind for kind in SOURCES if SOURCES[kind].elsewhere is None)
        raise UserError(f"no data set is called {name!r}; known: {known}")
    source = SOURCES[name]
    if category and not source.categories and source.elsewhere is None:
        others = ", ".join(kind for kind in SOURCES if SOURCES[kind].categories)
        raise UserError(f"--category {category}: only {others} has categories")
    published = source.published(category)
    root = root.expanduser()
    with _alone(root), _room():
        for archive in published.archives:
            if not (root / (archive.holds or archive.name)).exists():
                _provide(archive, root, published.page, progress)
    return str(published.source.format(root=root))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    lock = root / ".download.lock"
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(holding(lock))
        except Timeout as error:
            raise UserError(
                f"another process is downloading into {root}: {described(lock)}; wait for it"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write to {root}: {error.strerror or error}") from error
        for litter in root.glob(f".{RECORD}.*.tmp"):  # of a killed process
            litter.unlink(missing_ok=True)
        yield


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            "the disk is full; what is there is kept: make room and give the same command again"
        ) from error


def _provide(archive: Archive, root: Path, page: str, progress: OnProgress) -> None:
    """Make one archive's content stand in ``root``."""
    file, part = root / archive.name, root / f"{archive.name}.part"
    by_hand = file.exists()
    if not by_hand:
        _check_disk(archive, root)
        fetch(archive, part, page, progress)
        file = part
    size, sums = file.stat().st_size, _sums(file)
    if archive.md5 and sums["md5"] != archive.md5:
        what = (
            f"{root / archive.name} is not the published file: MD5 {sums['md5']}, expected "
            f"{archive.md5}"
        )
        raise _refusal(what, file, by_hand, f", or fetch it anew from {page}")
    if archive.holds:
        _unpack(archive, file, root, by_hand)
    else:
        file.replace(root / archive.name)
    _record(archive, root, size, sums, by_hand)
    if archive.holds and not by_hand:
        file.unlink()
    version_file(part).unlink(missing_ok=True)


def _check_disk(archive: Archive, root: Path) -> None:
    copies = 2 if archive.holds else 1
    needed, free = copies * archive.about_mib * 2**20, shutil.disk_usage(root).free
    if free < needed:
        raise UserError(
            f"{archive.name} and what it holds need about {needed / 2**30:.1f} GiB, {root} has "
            f"{free / 2**30:.1f} GiB free; make room or choose another folder"
        )


def _sums(path: Path) -> dict[str, str]:
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):  # once for both: a file may have 40 GB
            for digest in sums.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in sums.items()}


def _refusal(what: str, file: Path, by_hand: bool, instead: str = "") -> UserError:
    """Return the error of a file that is of no use; one that was fetched is removed."""
    if by_hand:
        return UserError(f"{what}; remove it{instead}")
    file.unlink()
    return UserError(f"{what}; it was removed: the same command fetches it anew")


def _unpack(archive: Archive, file: Path, root: Path, by_hand: bool) -> None:
    """Unpack beside, then rename what was promised into place: half of it is never seen."""
    assert archive.holds
    temporary = root / f".{archive.holds}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (_unzip if archive.name.endswith(".zip") else _untar)(file, temporary)
        if not (temporary / archive.holds).is_dir():
            raise tarfile.ReadError(f"it holds no folder {archive.holds}")
        (temporary / archive.holds).rename(root / archive.holds)
    except _DAMAGED as error:
        what = f"{root / archive.name} cannot be unpacked: {error}"
        raise _refusal(what, file, by_hand) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unzip(file: Path, into: Path) -> None:
    with zipfile.ZipFile(file) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"{name} would lie outside of the folder")
        _check_sizes((member.file_size for member in packed.infolist()), file, into.parent)
        packed.extractall(into)


def _untar(file: Path, into: Path) -> None:
    with tarfile.open(file, "r:gz") as packed:
        _check_sizes((member.size for member in packed), file, into.parent)
        packed.extractall(into, filter="data")


def _check_sizes(sizes: Iterable[int], file: Path, root: Path) -> None:
    """Raise before anything is written if an archive would unpack to more than can be meant.

    Raises:
        tarfile.ReadError: It is a decompression bomb.
        OSError: The disk has no room for it.
    """
    total, free = 0, shutil.disk_usage(root).free
    most = max(_SMALL, _MOST_TIMES * file.stat().st_size)
    for count, size in enumerate(sizes, 1):
        total += size
        if count > _MOST_MEMBERS or total > most:
            raise tarfile.ReadError(
                f"it would unpack to more than {most >> 20} MiB or {_MOST_MEMBERS} files, a "
                "decompression bomb"
            )
    if total > free:
        raise OSError(errno.ENOSPC, f"{total >> 20} MiB do not fit")


def _record(archive: Archive, root: Path, size: int, sums: dict[str, str], by_hand: bool) -> None:
    path = root / RECORD
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        records = {}
    if not isinstance(records, dict):
        records = {}
    if not archive.md5:
        _logger.warning("%s is unverified: its source publishes no checksum", archive.name)
    records[archive.name] = {
        "from": "put there by hand" if by_hand else archive.url,
        "bytes": size,
        **sums,
        "verified": archive.md5 is not None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(path, json_bytes(records))
