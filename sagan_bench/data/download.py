"""Fetching data sets from those who publish them: resumable, verified, unpacked in one step.

What the publisher gives no checksum for is marked unverified in ``downloads.json``, which records
every archive with its SHA-256. A file that a person has put into the folder by hand is used.
"""

import errno
import hashlib
import http.client
import json
import logging
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import Timeout

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, json_bytes
from sagan_bench.core.locks import holding

Progress = Callable[[int, int], None]
"""Called with the bytes done so far and the bytes in all of one archive."""

RECORD = "downloads.json"
ATTEMPTS = 5
"""Attempts in a row without a new byte before it gives up."""
PAUSE_SEC = 2.0
"""Pause after the first of them; each further one is twice as long."""
TIMEOUT_SEC = 60.0

_BLOCK = 2**20
_SMALL, _MOST_TIMES = 2**30, 20
"""Bytes that an archive may unpack to whatever its size, and else how many times that."""
_MOST_MEMBERS = 5_000_000
_REFUSALS = range(400, 500)
_REPEATABLE = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_logger = logging.getLogger(__name__)


class Archive(NamedTuple):
    """One file to fetch: its name, where it is, its MD5 if published, its size, what it becomes.

    ``holds`` is the name of what it unpacks to, or None for a file that is used as it is.
    """

    name: str
    url: str
    md5: str | None
    about_mib: int
    holds: str | None


class Dataset(NamedTuple):
    """The archives of one data set, the page for a person, and what ``--data`` takes afterwards."""

    archives: tuple[Archive, ...]
    page: str
    source: str


_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="

CELEBA = Dataset(
    archives=(
        Archive(
            name="list_eval_partition.txt",
            url=_DRIVE + "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            md5="d32c9cbf5e040fd4025c592c306e6668",
            about_mib=3,
            holds=None,
        ),
        Archive(
            name="list_attr_celeba.txt",
            url=_DRIVE + "0B7EVK8r0v71pblRyaVFSWGxPY0U",
            md5="75e246fa4810816ffd6ee81facbd244c",
            about_mib=26,
            holds=None,
        ),
        Archive(
            name="img_align_celeba.zip",
            url=_DRIVE + "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            md5="00d2c5bc6d35e252742224ab0c1e8fcb",
            about_mib=1377,
            holds="img_align_celeba",
        ),
    ),
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    source="celeba:{root}",
)

LSUN_CATEGORIES = (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room", "dining_room",
    "kitchen", "living_room", "restaurant", "tower",
)  # fmt: skip


def _cifar(classes: int, folder: str, md5: str) -> Dataset:
    name = f"cifar-{classes}-python.tar.gz"
    url = f"https://www.cs.toronto.edu/~kriz/{name}"
    return Dataset(
        archives=(Archive(name, url, md5, 163, folder),),
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        source=f"cifar{classes}:{{root}}",
    )


def _lsun(category: str | None) -> Dataset:
    category = category or "church_outdoor"
    if category not in LSUN_CATEGORIES:
        known = ", ".join(LSUN_CATEGORIES)
        raise UserError(f"--category {category}: LSUN publishes no such scenes; known: {known}")
    folders = [f"{category}_{split}_lmdb" for split in ("val", "train")]
    return Dataset(
        archives=tuple(
            Archive(f"{folder}.zip", f"http://dl.yf.io/lsun/scenes/{folder}.zip", None, 0, folder)
            for folder in folders
        ),
        page="https://www.yf.io/p/lsun",
        source=f"lsun:{{root}}#{category}_train",
    )


DATASETS: dict[str, Callable[[str | None], Dataset]] = {
    "celeba": lambda _: CELEBA,
    "lsun": _lsun,
    "cifar10": lambda _: _cifar(10, "cifar-10-batches-py", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": lambda _: _cifar(100, "cifar-100-python", "eb9058c3a382ffc7106e4002c42a8d85"),
}
"""Data sets by name, given the category that was asked for."""

ELSEWHERE = {
    "imagenet": (
        "ImageNet needs an account: fetch ILSVRC2012 from https://image-net.org, unpack it to "
        "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, and use --data imagenet:PATH"
    ),
    "twins": "twins is drawn, not fetched: use --data twins",
    "folder": "your own pictures need no download: use --data folder:PATH",
}
"""What to do about the data sets that cannot be fetched."""


def download(
    name: str, root: Path, *, category: str | None = None, progress: Progress | None = None
) -> str:
    """Put a data set into ``root`` and return what ``--data`` takes for it.

    What is there already is left alone; what was broken off goes on.

    Raises:
        UserError: no such data set; the source refuses, is out of reach or serves something else;
            the disk is full; or another process is at it.
    """
    if name not in DATASETS:
        known = f"no data set is called {name!r}; known: {', '.join(DATASETS)}"
        raise UserError(ELSEWHERE.get(name, known))
    if category and name != "lsun":
        raise UserError(f"--category {category}: only lsun has categories")
    dataset = DATASETS[name](category)
    root = root.expanduser()
    with _alone(root), _room():
        for archive in dataset.archives:
            _provide(archive, root, dataset.page, progress or (lambda done, total: None))
    return dataset.source.format(root=root)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(holding(root / ".download.lock"))
        except Timeout as error:
            raise UserError(f"another process is downloading into {root}; wait for it") from error
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


def _provide(archive: Archive, root: Path, page: str, progress: Progress) -> None:
    """Make one archive's content stand in ``root``."""
    if (root / (archive.holds or archive.name)).exists():
        return
    file = root / archive.name
    by_hand = file.exists()
    if not by_hand:
        _check_disk(archive, root)
        file = root / f"{archive.name}.part"
        _fetch(archive, file, page, progress)
    size, sums = _size(file), _sums(file)
    if archive.md5 and sums["md5"] != archive.md5:
        _refuse_sum(archive, file, sums["md5"], page, by_hand)
    if archive.holds:
        _unpack(archive, file, root, by_hand)
    else:
        file.replace(root / archive.name)
    _record(archive, root, size, sums, by_hand)
    if archive.holds and not by_hand:
        file.unlink()
    _validator_file(root / f"{archive.name}.part").unlink(missing_ok=True)


def _check_disk(archive: Archive, root: Path) -> None:
    copies = 2 if archive.holds else 1
    needed, free = copies * archive.about_mib * 2**20, shutil.disk_usage(root).free
    if free < needed:
        raise UserError(
            f"{archive.name} and what it holds need about {needed / 2**30:.1f} GiB, {root} has "
            f"{free / 2**30:.1f} GiB free; make room or choose another folder"
        )


# --- fetching --------------------------------------------------------------------------------


class _BrokenOff(ConnectionError):
    """The connection ended before the file did."""


def _fetch(archive: Archive, part: Path, page: str, progress: Progress) -> None:
    """Fetch into ``part``, going on after what is there, until it is whole.

    Attempts are counted anew whenever one has brought something.
    """
    failed = 0
    while True:
        before = _size(part)
        try:
            _continue(archive, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code in _REFUSALS:
                said = f"HTTP {error.code} {error.reason}"
                raise UserError(_refusal(archive, part.parent, page, said)) from error
            problem: Exception = error
        except _Refused as error:
            raise UserError(_refusal(archive, part.parent, page, str(error))) from error
        except _REPEATABLE as error:
            problem = error
        failed = 1 if _size(part) > before else failed + 1
        if failed >= ATTEMPTS:
            raise UserError(
                f"{archive.url} cannot be reached or breaks off ({problem}); {_size(part)} bytes "
                f"are kept: the same command goes on\n{_or_by_hand(archive, part.parent, page)}"
            ) from problem
        _logger.warning("%s: %s; going on", archive.name, problem)
        time.sleep(PAUSE_SEC * 2 ** (failed - 1))


class _Refused(Exception):
    """The source answers, but not with the file."""


def _continue(archive: Archive, part: Path, progress: Progress) -> None:
    """Make one request for what is missing and append what it brings."""
    start = _size(part)
    validator = _validator_file(part).read_text() if _validator_file(part).exists() else ""
    if start and not (validator or archive.md5):
        start = 0  # nothing would tell if the file at the source had changed
    headers = {"User-Agent": "sagan-bench"}
    if start:
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": validator} if validator else {}
    request = urllib.request.Request(archive.url, headers=headers)
    with _opened(request, part) as response:
        if response.headers.get_content_type() == "text/html":
            raise _Refused("it answers with a page: a quota is used up, or it asks a question")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the whole file: the server knows no ranges, or has another version
        _validator_file(part).write_text(_validator(response.headers))
        length = response.headers.get("Content-Length")
        _append(response, part, start, start + int(length) if length else None, progress)


@contextmanager
def _opened(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SEC) as response:
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file at the source: it is another one
            raise _BrokenOff("the file at the source has changed") from error
        raise


def _append(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    progress: Progress,
) -> None:
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while block := response.read(_BLOCK):
            file.write(block)
            done += len(block)
            progress(done, total or done)
    if total is not None and done < total:
        raise _BrokenOff(f"broken off after {done} of {total} bytes")


def _validator_file(part: Path) -> Path:
    """Return the file that keeps what identifies the version of which ``part`` is a beginning."""
    return part.with_name(f"{part.name}.version")


def _validator(headers: Any) -> str:
    """Return a strong ETag, else the time of change, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _refusal(archive: Archive, root: Path, page: str, said: str) -> str:
    by_hand = _or_by_hand(archive, root, page)
    return f"{archive.url} does not give {archive.name}: {said}\n{by_hand}"


def _or_by_hand(archive: Archive, root: Path, page: str) -> str:
    size = f" (about {archive.about_mib} MiB)" if archive.about_mib else ""
    return (
        f"try again later, or fetch {archive.name}{size} by hand from {page}, put it into {root}, "
        "and give the same command again"
    )


# --- verifying, unpacking, recording ---------------------------------------------------------


def _sums(path: Path) -> dict[str, str]:
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for digest in sums.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in sums.items()}


def _refuse_sum(archive: Archive, file: Path, found: str, page: str, by_hand: bool) -> None:
    where = file.with_name(archive.name)
    what = f"{where} is not the published file: MD5 {found}, expected {archive.md5}"
    if by_hand:
        raise UserError(f"{what}; remove it, or fetch it anew from {page}")
    file.unlink()
    raise UserError(f"{what}; it was removed: the same command fetches it anew")


def _unpack(archive: Archive, file: Path, root: Path, by_hand: bool) -> None:
    """Unpack beside, then rename what was promised into place: half of it is never seen."""
    assert archive.holds
    temporary = root / f".{archive.holds}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if archive.name.endswith(".zip"):
            _unzip(file, temporary)
        else:
            _untar(file, temporary)
        if not (temporary / archive.holds).is_dir():
            raise tarfile.ReadError(f"it holds no folder {archive.holds}")
        (temporary / archive.holds).rename(root / archive.holds)
    except _DAMAGED as error:
        kept = "remove it" if by_hand else "it was removed: the same command fetches it anew"
        if not by_hand:
            file.unlink()
        raise UserError(f"{root / archive.name} cannot be unpacked: {error}; {kept}") from error
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
