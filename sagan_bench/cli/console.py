"""Text for a terminal: what files and arguments hold is shown, and never obeyed."""

import io
import os
import sys
from typing import Any

from sagan_bench.core.text import ShownFormatter, shown

__all__ = ["ShownFormatter", "say", "shown", "tolerant"]


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
