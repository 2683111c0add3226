"""A real SLURM of three nodes on this machine; needs root and Debian's slurm-wlm and munge."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "tests" / "clusters"


def _said(*words: str) -> list[str]:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


class Slurm:
    """Three nodes; runs are in a partition that another one preempts."""

    options: Sequence[str] = ("--engine", "slurm", "--slurm", "partition=low,time=30")

    def up(self, folder: Path) -> None:
        """Start it; nodes have a core each, so that three runs are made at a time."""
        self.folder = folder
        subprocess.run(
            [RECIPES / "slurm_up.sh", folder, "3", "1"], check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "GRACE_SEC": "5", "KILL_WAIT_SEC": "8", "PORT": "27500"},
        )  # fmt: skip
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    def down(self) -> None:
        """End it."""
        subprocess.run([RECIPES / "slurm_down.sh", self.folder], check=False)

    def node(self, driver: int) -> str:
        """Kill all that runs on a node; start its daemon again once SLURM has seen it."""
        running = (line.split() for line in _said("squeue", "-h", "-t", "R", "-o", "%A %N"))
        job, name = next(iter(running))
        daemon = int((self.folder / f"slurmd.{name}.pid").read_text())
        for process in (daemon, *_processes(name, job)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while not any("down" in line for line in _said("sinfo", "-h", "-N", "-n", name, "-o%T")):
            time.sleep(1)
        subprocess.run(["slurmd", "-N", name, "-c"], check=True)
        return f"{name} with job {job}"

    def preemption(self, driver: int) -> str:
        """Have somebody of a higher partition want every node for ten seconds."""
        script = self.folder / "high.sh"
        script.write_text("#!/bin/bash\nsleep 10\n")
        return " ".join(_said("sbatch", "-phigh", "-N3", "--exclusive", "-t1", "-o/dev/null",
                              str(script)))  # fmt: skip


def _processes(node: str, job: str) -> Iterator[int]:
    """Yield the processes of a node: of its jobs, and of SLURM beside them."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes()
            if f"SLURMD_NODENAME={node}".encode() in environment or (
                words.startswith(f"slurmstepd: [{job}.".encode())
            ):
                yield int(folder.name)
