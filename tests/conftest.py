"""All tests together run with two threads and never write to the user's cache."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from example_reports import Example
    from playwright.sync_api import Browser

SHARED_BY = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = max(1, 2 // SHARED_BY)
if SHARED_BY > 1:  # before anything that reads it is imported, and for the processes tests start
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import torch

    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    import statsmodels.stats.multitest  # noqa: F401

    gc.freeze()  # statsmodels collects garbage at every test of Holm's: not all of torch each time
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGAN_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths such as ``runs/`` land in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_recalled() -> Iterator[None]:
    """Components that a test's files or records tell of are unknown to the next."""
    yield
    from command_line import forget

    forget()


@pytest.fixture(scope="session")
def clear(tmp_path_factory: pytest.TempPathFactory) -> "Example":
    """A study in which attention clearly helps, rendered once for all tests."""
    from example_reports import rendered

    return rendered(tmp_path_factory.mktemp("clear"))


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium; without it its tests are skipped, and with CI set they fail."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{CHROMIUM} is not there: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS)
        )
        yield started
        started.close()
