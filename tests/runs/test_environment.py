"""By which engine, and where, an attempt was made."""

import os
import socket

import pytest

from sagan_bench.runs.environment import ENGINE, JOB, attempt_here, variables
from sagan_bench.runs.records import Attempt


def test_an_attempt_says_its_machine_and_whoever_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE, raising=False)
    monkeypatch.delenv(JOB, raising=False)
    alone = attempt_here(3, 2)
    assert (alone.host, alone.engine, alone.job) == (socket.gethostname(), None, None)
    assert (alone.from_step, alone.threads, alone.processes) == (3, 2, None)
    with variables({ENGINE: "slurm", JOB: "12_3"}):
        assert attempt_here(0, 1, 1).place == f"on {socket.gethostname()} by slurm 12_3"
        with variables({ENGINE: "inline"}):
            assert attempt_here(0, 1).engine == "inline"
        assert os.environ[ENGINE] == "slurm"
    assert ENGINE not in os.environ
    assert attempt_here(0, 1).place == f"on {socket.gethostname()}"


def test_an_attempt_of_before_has_no_place() -> None:
    stored = {"started": "2026-01-02T03:04:05Z", "from_step": 0}
    before = Attempt.model_validate(stored)
    assert (before.host, before.engine, before.job) == (None, None, None)
