"""Places where runs are made, and what may befall them there; a module for each engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

BLOWS = (
    "driver", "preemption", "node", "driver", "preemption", "node", "driver", "preemption",
)  # fmt: skip
"""What befalls a study, in this order."""


class Place(Protocol):
    """Where runs are made, by the driver, which is a process group of its own."""

    options: Sequence[str]
    """Of the command, which choose the engine."""

    def up(self, folder: Path) -> None:
        """Start what it needs; all its files are in the folder."""

    def down(self) -> None:
        """End what it started."""

    def node(self, driver: int) -> str:
        """Take a machine that is at a run away at once, and let it come back; say which."""

    def preemption(self, driver: int) -> str:
        """Take machines away after a warning, and let them come back; say which."""
