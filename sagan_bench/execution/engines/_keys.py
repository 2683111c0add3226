"""By what an experiment's runs are known to a cluster."""

import json
import secrets
from contextlib import suppress
from pathlib import Path

from sagan_bench.core.files import atomic_write, json_bytes


def key_of(folder: Path) -> str:
    """Return what is in the names of its runs; a copy of the folder elsewhere has another."""
    place, file = str(folder.resolve()), folder / "key"
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(file.read_bytes())
        if stored["path"] == place:
            return str(stored["key"])
    folder.mkdir(parents=True, exist_ok=True)
    key = secrets.token_hex(4)
    atomic_write(file, json_bytes({"key": key, "path": place}))
    return key
