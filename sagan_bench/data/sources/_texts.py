"""Tables of text beside pictures, in whatever way an editor or a download has left them."""

import codecs
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.data.failures import failure

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the mark that a file begins with; those of UTF-32 begin with one of UTF-16."""

_LARGEST = 2**28
"""Bytes of the largest table that is read; the largest published one has 26 MiB."""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a table of text in UTF-8 or UTF-16, with or without a mark.

    Raises:
        UserError: It cannot be read, is empty, a web page, or no text at all.
    """
    content = read_table(path)
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason}); fetch it again") from error
    if not text.strip("\0 \r\n\t"):
        raise UserError(f"{path} is empty; fetch it again")
    if text.lstrip()[:1] == "<":
        raise UserError(f"{path} is a web page, not the table it should be; fetch it again")
    if "\0" in text:
        raise UserError(f"{path} holds zero bytes: parts of it were never written; fetch it again")
    return text.splitlines()


def read_table(path: Path) -> bytes:
    """Return the bytes of a table, as they are."""
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise UserError(f"{path} has {size} bytes, more than any such table; fetch it again")
        return path.read_bytes()
    except OSError as error:
        raise failure(error, path) or UserError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from error


def _encoding(content: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    # Without a mark, UTF-16 of Latin letters shows by its zeros, every other byte.
    zeros = content[:2].find(b"\0")
    return {0: "utf-16-be", 1: "utf-16-le"}.get(zeros, "utf-8")
