"""Ctrl-C and SIGTERM as polite requests, and how a command that obeyed one ends."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

INTERRUPTED, TERMINATED = 130, 143


@contextmanager
def stopping() -> Iterator[Callable[[], str | None]]:
    """Within the block the first Ctrl-C or SIGTERM is a polite request, told by the function."""
    asked: list[str] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append("interrupted" if number == signal.SIGINT else "terminated")
        # Not print: this may interrupt one.
        os.write(2, b"stopping as soon as nothing is lost; Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_stopped(reason: str, path: Path | None = None) -> NoReturn:
    """End the command as interrupted or terminated, and say how to go on."""
    where = f" in {path}" if path else ""
    print(f"{reason}{where}; the same command again goes on", file=sys.stderr)
    raise typer.Exit(INTERRUPTED if reason == "interrupted" else TERMINATED)
