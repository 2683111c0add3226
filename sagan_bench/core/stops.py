"""Why a run was asked to stop."""

from enum import StrEnum


class StopReason(StrEnum):
    """Why a run was asked to stop, in the word that its record keeps."""

    INTERRUPTED = "interrupted"
    """By Ctrl-C."""
    TERMINATED = "terminated"
    """By SIGTERM."""
    PRUNED = "pruned"
    """Its search has better ones."""
    ABANDONED = "the driver is gone"
