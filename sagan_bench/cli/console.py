"""Text for a terminal: what files and arguments hold is shown, and never obeyed."""

import io
import logging
import os
import re
import sys
from typing import Any

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff]"  # separators, marks, halves of characters
)


def shown(text: str, *, lines: bool = False) -> str:
    r"""Return text that a terminal shows as it is: a control character as ``\x1b`` or ``\u202e``.

    Args:
        text: from anywhere.
        lines: whether it has lines of its own; else a line feed is a control character too.
    """
    if text.isprintable():
        return text
    if lines:
        return "\n".join(map(shown, text.split("\n")))
    return _CONTROL.sub(_escaped, text)


def _escaped(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: str = "", *, error: bool = False) -> None:
    """Print a line of `shown` text, to stderr if it is an ``error`` or a remark."""
    print(shown(text), file=sys.stderr if error else sys.stdout)


def tolerant(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream to the same place that outlives its reader, and whose errors say what it is.

    Remarks are no result: what stderr cannot take is dropped.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(_Tolerant(stream.fileno(), stream.name)),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


class _Tolerant(io.FileIO):
    """Output whose reader may go, as ``head`` does: what is printed then is nobody's."""

    def __init__(self, handle: int, name: str) -> None:
        super().__init__(handle, "w", closefd=False)
        self.is_for_remarks = name == "<stderr>"

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._give_up()  # the rest, at the end of the interpreter say, is nobody's
            if isinstance(error, BrokenPipeError) or self.is_for_remarks:
                return len(data)
            error.filename = "standard output"
            raise

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class ShownFormatter(logging.Formatter):
    """Formats what is logged as `shown` text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and the lines of its traceback if it has one."""
        return shown(super().format(record), lines=True)
