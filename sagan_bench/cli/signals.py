"""How a command ends; Ctrl-C and SIGTERM as polite requests to do so."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from sagan_bench.core.stops import StopReason

INTERNAL, USAGE, SOME_FAILED = 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143


@contextmanager
def stopping() -> Iterator[Callable[[], StopReason | None]]:
    """Within the block the first Ctrl-C or SIGTERM is a polite request, told by the function."""
    reasons: list[StopReason] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if reasons and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted = number == signal.SIGINT
        reasons.append(StopReason.INTERRUPTED if interrupted else StopReason.TERMINATED)
        # Not print: this may interrupt one.
        os.write(2, b"stopping as soon as nothing is lost; Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: reasons[0] if reasons else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_stopped(reason: str, path: Path | None = None) -> NoReturn:
    """End the command as interrupted or terminated, and say how to go on."""
    where = f" in {path}" if path else ""
    print(f"{reason}{where}; the same command again goes on", file=sys.stderr)
    raise typer.Exit(INTERRUPTED if reason == StopReason.INTERRUPTED else TERMINATED)
