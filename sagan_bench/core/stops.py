"""How a run is asked to stop."""

from enum import StrEnum
from pathlib import Path


class StopReason(StrEnum):
    """Why a run was asked to stop, in the word that its record keeps."""

    INTERRUPTED = "interrupted"
    """By Ctrl-C."""
    TERMINATED = "terminated"
    """By SIGTERM."""
    PRUNED = "pruned"
    """Its search has better ones."""
    ABANDONED = "the driver is gone"
    UNHEARD = "the driver was not heard from"
    DETACHED = "detached"
    """Nothing stops but the command that asked for the runs."""


class Stopped(Exception):
    """The run was asked to stop; what it had done is in its directory."""

    def __init__(self, reason: str, path: Path | None) -> None:
        super().__init__(reason)
        self.path = path
