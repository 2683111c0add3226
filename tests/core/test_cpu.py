"""How threads wait, as the environment of a process says it before torch is there."""

import json
import os
import subprocess
import sys

import pytest

from sagan_bench.core import cpu

SEEN = f"""
import atexit, json, os, sys
from sagan_bench.cli import main
atexit.register(lambda: print(json.dumps([os.environ.get({cpu.SPINS!r}), "torch" in sys.modules])))
main(["--version"])
"""


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, str(cpu.FEW_SPINS)),
        ({cpu.SPINS: "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_the_command_line_has_threads_wait_briefly_unless_told_before_torch_is_there(
    given: dict[str, str], spins: str | None
) -> None:
    waiting = (cpu.SPINS, "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in waiting}
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [spins, False]
