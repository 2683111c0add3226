"""What a run printed, or logged: ``log.txt`` in its folder, attempt after attempt."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from sagan_bench.core.errors import UserError, machine_error
from sagan_bench.core.stored import refuse_special
from sagan_bench.core.text import shown
from sagan_bench.runs.environment import without_secrets
from sagan_bench.runs.records import Attempt

LOG = "log.txt"
_PRINTING = (1, 2)
"""Standard output and errors, those of libraries in C too."""
_LAST_BYTES, _LAST_LINES = 4_000, 8


def heading(attempt: Attempt) -> str:
    """Return the line that begins what an attempt printed."""
    return f"--- attempt of {attempt.started:%Y-%m-%d %H:%M:%S} UTC, {attempt.place}"


@contextmanager
def printed_to(file: Path) -> Iterator[Callable[[str], None]]:
    """Have all that this process prints appended to a file, within; yield what adds a line to it.

    Where it cannot be opened, what is printed goes where it went, and lines are nobody's.
    """
    with ExitStack() as stack:
        log: int | None = None
        with suppress(OSError):
            log = _turned_to(file, stack)

        def add(line: str) -> None:
            with suppress(OSError):
                if log is not None:
                    os.write(log, f"{line}\n".encode(errors="replace"))

        yield add


@contextmanager
def logged_to(file: Path) -> Iterator[Callable[[str], None]]:
    """Have what this process logs appended to a file too, within; yield what adds a line to it.

    Each record has its UTC time; passwords and options of URLs are masked.  Where the file cannot
    be opened or written, nothing is.  Where all that is printed goes there already, nothing more.
    """
    with ExitStack() as stack:
        handler: _Lines | None = None
        with suppress(OSError):
            if not _is_printed_to(file):
                handler, root = _Lines(_opened(file, stack)), logging.getLogger()
                root.addHandler(handler)
                stack.callback(root.removeHandler, handler)
        yield handler.add if handler else lambda line: None


class _Lines(logging.Handler):
    """Appends what is logged to an open file, if that can be done."""

    def __init__(self, log: int) -> None:
        super().__init__()
        formatter = logging.Formatter("%(asctime)s UTC %(levelname)s: %(message)s")
        formatter.converter = time.gmtime
        formatter.default_msec_format = None
        self.setFormatter(formatter)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record, and its traceback if it has one."""
        try:
            self.add(self.format(record))
        except Exception:  # noqa: BLE001  # a message that does not fit its arguments
            self.handleError(record)

    def add(self, text: str) -> None:
        """Append a line, or several."""
        masked = re.sub(r"\S+", lambda word: without_secrets(word[0]), shown(text, lines=True))
        with suppress(OSError):
            os.write(self.log, f"{masked}\n".encode(errors="replace"))


def _is_printed_to(file: Path) -> bool:
    """Return whether this process's errors go to a file."""
    return file.exists() and os.path.samestat(os.fstat(_PRINTING[1]), file.stat())


def _opened(file: Path, stack: ExitStack) -> int:
    """Open a file to append to until a stack is closed.  Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not blocking: a pipe that nobody reads is an error, and is not waited for.
    log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    stack.callback(os.close, log)
    return log


def _turned_to(file: Path, stack: ExitStack) -> int:
    """Print to a file until a stack is closed, and return its handle.  Raises `OSError`."""
    log = _opened(file, stack)
    for handle in _PRINTING:
        kept = os.dup(handle)
        stack.callback(os.close, kept)
        stack.callback(os.dup2, kept, handle)
    stack.callback(_flush)
    _flush()
    for handle in _PRINTING:
        os.dup2(log, handle)
    return log


def _flush() -> None:
    """Print what waits, and from now on line by line: a kill loses no whole line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError, ValueError):
                stream.reconfigure(line_buffering=True)


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a run's log.

    Raises:
        UserError: there is no log, or it cannot be read.
    """
    file = path / LOG
    try:
        refuse_special(file)
        with file.open(encoding="utf-8", errors="replace", newline="\n") as log:
            yield from (line.removesuffix("\n") for line in log)
    except FileNotFoundError:
        raise UserError(
            f"{path} has no {LOG}: it was made before runs kept one, or it could not be written"
        ) from None
    except OSError as error:
        raise machine_error(error) from error


def last_lines(file: Path) -> str:
    """Return the end of what was printed to a file; nothing where that cannot be read."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LAST_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-_LAST_LINES:])
