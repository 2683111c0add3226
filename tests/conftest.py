"""Every test runs with two threads at most and never writes to the user's cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGAN_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths such as ``runs/`` land in the test's own folder."""
    monkeypatch.chdir(tmp_path)
