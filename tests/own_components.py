"""Files of components of one's own (`tests/own`), read as the package's are, and forgotten."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagan_bench.core import registry
from sagan_bench.core.registry import Registry

FILES = sorted((Path(__file__).parent / "own").glob("*.py"))
KINDS = [kind for kind in vars(registry).values() if isinstance(kind, Registry)]


@contextmanager
def loaded(*names: str) -> Iterator[list[set[str]]]:
    """Have files known for a while, all by default; yield what was added to each of `KINDS`."""
    before = [set(kind) for kind in KINDS]
    for file in (file for file in FILES if not names or file.stem in names):
        spec = importlib.util.spec_from_file_location(f"own_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    added = [set(kind) - known for kind, known in zip(KINDS, before, strict=True)]
    try:
        yield added
    finally:
        for kind, of_kind in zip(KINDS, added, strict=True):
            for name in of_kind:
                kind.forget(name)
