"""The program as the golden tests reach it: its command line, and what no command says.

All that the golden tests import of the package, and of the helpers of other tests, is here, so that
a change of names or modules adapts one file.
"""

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

if str(Path(__file__).parents[1]) not in sys.path:  # started as renew.py, not by pytest
    sys.path.insert(0, str(Path(__file__).parents[1]))

import example_reports
import example_tunings
import torch
from example_studies import HOST

from sagan_bench import cli
from sagan_bench.config import layers
from sagan_bench.config import variants as shipped
from sagan_bench.core import errors, system
from sagan_bench.execution import engines
from sagan_bench.experiments import studies

FINGERPRINT = "0" * 16
"""Of the data, in digests of configurations whose data are not at hand."""


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def plain_machine(folder: Path) -> Iterator[None]:
    """Be in a folder, with its own cache, on a machine where ``auto`` is always the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGAN_BENCH_CACHE", str(folder / "the-cache"))
        patch.setattr(system, "multiplies_bf16", lambda chosen: False)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(sys, "argv", ["cli.py"])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def call(*arguments: str) -> Ended:
    """Give a command in this process, with the logging that a process of its own would have."""
    out, err, log, code = io.StringIO(), io.StringIO(), logging.getLogger(), 0
    handlers, level = log.handlers[:], log.level
    log.handlers.clear()
    argv, sys.argv = sys.argv, ["cli.py", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = argv
        log.handlers[:] = handlers
        log.setLevel(level)
    return Ended(code, out.getvalue(), err.getvalue())


def said(*arguments: str, code: int = 0) -> str:
    """Return what a command prints on stdout, which must end with a code."""
    ended = call(*arguments)
    assert ended.code == code, (arguments, ended)
    return ended.stdout


def sets(*settings: str) -> list[str]:
    """Return settings as options of a command."""
    return [part for text in settings for part in ("--set", text)]


# --- Configurations: no command gives the digest of images that are not at hand ------------------


def presets() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(shipped.presets())


def variants() -> list[str]:
    """Return the names of the shipped variants."""
    return sorted(shipped.variants())


def study_names() -> list[str]:
    """Return the names of the shipped studies."""
    return sorted(studies.shipped())


def digest(preset: str, variant: str) -> str:
    """Return the digest of a configuration, or ``refused``."""
    try:
        return layers.resolve(HOST, preset=preset, variant=variant).config.digest(FINGERPRINT)
    except errors.UserError:
        return "refused"


def cells(name: str) -> dict[str, str]:
    """Return the digest of each cell of a shipped study."""
    asked = studies.load(name)
    return {
        f"{variant}-s{seed}": asked.config(variant, seed, HOST).config.digest(FINGERPRINT)
        for variant in asked.all_variants
        for seed in asked.seeds
    }


# --- Studies and tunings that nobody trained ------------------------------------------------------


def leave_study(folder: Path, values: Mapping[str, Sequence[float | None]], **how: Any) -> Path:
    """Leave a study whose runs ended with these twin_rates; None is a run that diverged."""
    return example_reports.leave_study(folder, values, **how)


def leave_tuning(
    folder: Path, outcome: Callable[[Any, int], float | None], trials: int, **asked: Any
) -> Path:
    """Leave a tuning whose runs' FID is a function of their configuration and step."""
    wanted = example_tunings.small_tuning(folder.parent, **asked)
    memory = example_tunings.planned(wanted, folder, trials=trials)
    example_tunings.tune(memory, folder, example_tunings.Scripted(outcome, slots=1))
    return folder


@contextlib.contextmanager
def untrained(outcome: Callable[[Any, int], float | None]) -> Iterator[None]:
    """Let processes of runs do as a function of their configuration and step says."""
    with pytest.MonkeyPatch.context() as patch:
        scripted = example_tunings.Scripted
        patch.setattr(
            engines, "opened", lambda profile, place, stop: scripted(outcome, place.jobs or 2)
        )
        yield
