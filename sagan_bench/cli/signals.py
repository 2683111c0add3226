"""How a command ends; Ctrl-C and SIGTERM as polite requests to do so."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from sagan_bench.core.stops import Stopped, StopReason

INTERNAL, USAGE, SOME_FAILED = 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143
POLITE, LEAVING = "stopping as soon as nothing is lost", "leaving; what has begun goes on"
"""What is said of a request to stop."""


@contextmanager
def stopping(remark: str = POLITE) -> Iterator[Callable[[], StopReason | None]]:
    """Within the block the first Ctrl-C or SIGTERM is a polite request, told by the function.

    What obeys it by raising `Stopped` ends the command, which says how to go on.

    Args:
        remark: what is said at once.
    """
    reasons: list[StopReason] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if reasons and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted = number == signal.SIGINT
        reasons.append(StopReason.INTERRUPTED if interrupted else StopReason.TERMINATED)
        # Not print: this may interrupt one.
        os.write(2, f"{remark}; Ctrl-C again to stop at once\n".encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: reasons[0] if reasons else None
    except Stopped as stopped:
        where = f" in {stopped.path}" if stopped.path else ""
        print(f"{stopped}{where}; the same command again goes on", file=sys.stderr)
        interrupted = str(stopped) == StopReason.INTERRUPTED
        raise typer.Exit(INTERRUPTED if interrupted else TERMINATED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
