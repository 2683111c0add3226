"""Errands as a user meets them: a study whose ``auto`` a node decides, its images, ``doctor``."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run
from example_runs import SMALL
from example_studies import FILE
from PIL import Image
from pretended_slurm import HOST, PretendedSlurm, cluster

from sagan_bench import cli
from sagan_bench.cli import errands as asking
from sagan_bench.cli import running, signals
from sagan_bench.core.stops import Stopped, StopReason
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import cache_root
from sagan_bench.execution import errands
from sagan_bench.runs import records
from sagan_bench.session.examination import Finding

__all__ = ["cluster"]
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _lab(tmp_path: Path, cluster: PretendedSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of two variants, and a profile, whose runs are never begun."""
    (tmp_path / "small.toml").write_text(FILE)
    profile = f'[lab]\nkind = "slurm"\npython = "{cluster.python}"\nsbatch = {{ time = "10" }}\n'
    (tmp_path / "engines.toml").write_text(profile)
    cluster.answers()

    def carry_out(folder: Path, *rest: object, **more: object) -> None:
        raise Stopped(StopReason.INTERRUPTED, folder)

    monkeypatch.setattr("sagan_bench.cli.ablate.carry_out", carry_out)
    monkeypatch.setattr("sagan_bench.cli.tune.carry_out", carry_out)


def begun(verb: str = "ablate", *more: str) -> int:
    """Give a command up to where runs are handed over; 130 if it came to that."""
    sets = [part for text in SMALL for part in ("--set", text)]
    what = ["ablate", "small.toml"] if verb == "ablate" else ["tune", "--trials", "1"]
    with signals.stopping():
        pass
    try:
        return run(*what, "--engine", "lab", *sets, *more)
    except Stopped:
        return signals.INTERRUPTED
