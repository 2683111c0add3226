"""The files through which an experiment and its actors in Ray know of each other."""

import json
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from sagan_bench.core.files import atomic_write, json_bytes
from sagan_bench.execution.engines._keys import key_of

NAME = ".ray"


class Folder:
    """The folder ``.ray`` of an experiment.

    ``key`` (part of the names of its actors), ``cluster.json`` while there may be some, and copies
    of the code that they run.

    Args:
        experiment: its folder.
    """

    def __init__(self, experiment: Path) -> None:
        self.path = experiment.absolute() / NAME
        self._cluster = self.path / "cluster.json"

    @cached_property
    def prefix(self) -> str:
        """What the names of its actors begin with."""
        return f"sagan-{key_of(self.path)}-"

    @property
    def address(self) -> str | None:
        """Of the cluster where actors of its may be; None where there are none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(self._cluster.read_bytes())["address"])
        return None

    def note(self, address: str) -> None:
        """Store at which cluster actors are begun."""
        self.path.mkdir(parents=True, exist_ok=True)
        atomic_write(self._cluster, json_bytes({"address": address}))

    def forget(self) -> None:
        """Note that no actor is left."""
        self._cluster.unlink(missing_ok=True)
