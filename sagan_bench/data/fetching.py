"""Fetching a file over HTTP, from the byte where it was broken off."""

import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.progress import OnProgress
from sagan_bench.data.sources._base import Archive

ATTEMPTS = 5
"""Attempts in a row without a new byte before it gives up."""
PAUSE_SEC = 2.0
"""Pause after the first of them; each further one is twice as long."""
TIMEOUT_SEC = 60.0

_BLOCK = 2**20
_REFUSALS = range(400, 500)
_REPEATABLE = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_logger = logging.getLogger(__name__)


class _BrokenOff(ConnectionError):
    """The connection ended before the file did."""


class _Refused(Exception):
    """The source answers, but not with the file."""


def fetch(archive: Archive, part: Path, page: str, progress: OnProgress) -> None:
    """Fetch into ``part``, going on after what is there, until it is whole.

    Attempts are counted anew whenever one has brought something.

    Raises:
        UserError: The source refuses, is out of reach or serves something else.
    """
    size = f" (about {archive.about_mib} MiB)" if archive.about_mib else ""
    by_hand = (
        f"try again later, or fetch {archive.name}{size} by hand from {page}, put it into "
        f"{part.parent}, and give the same command again"
    )
    failed = 0
    while True:
        before = _size(part)
        try:
            _go_on(archive, part, progress)
            return
        except _Refused as error:
            refusal = f"{archive.url} does not give {archive.name}: {error}"
            raise UserError(f"{refusal}\n{by_hand}") from error
        except _REPEATABLE as error:
            problem = error
        failed = 1 if _size(part) > before else failed + 1
        if failed >= ATTEMPTS:
            raise UserError(
                f"{archive.url} cannot be reached or breaks off ({problem}); {_size(part)} bytes "
                f"are kept: the same command goes on\n{by_hand}"
            ) from problem
        _logger.warning("%s: %s; going on", archive.name, problem)
        time.sleep(PAUSE_SEC * 2 ** (failed - 1))


def _go_on(archive: Archive, part: Path, progress: OnProgress) -> None:
    """Make one request for what is missing and append what it brings."""
    start, version = _size(part), version_file(part)
    validator = version.read_text() if version.exists() else ""
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
        etag = response.headers.get("ETag", "")
        is_strong = etag and not etag.startswith("W/")
        version.write_text(etag if is_strong else response.headers.get("Last-Modified", ""))
        _append(response, part, start, progress)


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
        if error.code in _REFUSALS:
            raise _Refused(f"HTTP {error.code} {error.reason}") from error
        raise


def _append(
    response: http.client.HTTPResponse, part: Path, start: int, progress: OnProgress
) -> None:
    length = response.headers.get("Content-Length")
    done, total = start, start + int(length) if length else None
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while block := response.read(_BLOCK):
            file.write(block)
            done += len(block)
            progress(done, total or done)
    if total is not None and done < total:
        raise _BrokenOff(f"broken off after {done} of {total} bytes")


def version_file(part: Path) -> Path:
    """Return the file that keeps what identifies the version of which ``part`` is a beginning.

    That is a strong ETag, else the time of change, else nothing.
    """
    return part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
