"""One machine: it is switched off, or ends the driver politely as at the end of an allocation."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil


class Machine:
    """This machine, with two runs at a time."""

    options: Sequence[str] = ("--jobs", "2")

    def up(self, folder: Path) -> None:
        """Nothing is needed."""

    def down(self) -> None:
        """Nothing was started."""

    def node(self, driver: int) -> str:
        """Kill the driver and its workers, all at the same moment."""
        process = psutil.Process(driver)
        for each in (process, *process.children(recursive=True)):
            each.kill()
        return "this one"

    def preemption(self, driver: int) -> str:
        """Have the driver end everything after checkpoints."""
        os.kill(driver, signal.SIGTERM)
        return "this one"
