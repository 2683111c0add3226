"""What a run printed: ``log.txt`` in its folder, attempt after attempt."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from sagan_bench.core.errors import UserError, machine_error
from sagan_bench.core.stored import refuse_special
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


def _turned_to(file: Path, stack: ExitStack) -> int:
    """Print to a file until a stack is closed, and return its handle.  Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not blocking: a pipe that nobody reads is an error, and is not waited for.
    log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    stack.callback(os.close, log)
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
    """Yield the lines that a run printed.

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
            f"{path} has no {LOG}: what runs of studies and tunings print is kept; a run by train "
            "prints to its terminal"
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
