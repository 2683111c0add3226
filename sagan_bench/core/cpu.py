"""What the processor is and how much of it this process may use; imports no torch."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables of the environment that say how many threads a process may use."""

SPINS = "GOMP_SPINCOUNT"
"""Of GNU's OpenMP, which torch computes with on Linux: how often a thread that waits for the others
looks, before it sleeps."""
FEW_SPINS = 10_000
"""GNU's are 300,000: where other programs want the core too, a thread then looks on through its
turns, and the one that it waits for gets fewer (docs/cpu.md)."""


def wait_briefly() -> None:
    """Have threads that wait for each other give up their cores soon; no bit depends on it.

    To be called before torch is imported.  What the environment says of waiting stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPINS, str(FEW_SPINS))


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def flags() -> frozenset[str]:
    """Return the processor's feature flags; empty where the system does not tell."""
    line = re.search(r"^flags\s*:(.*)$", _info(), re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


def name() -> str | None:
    """Return the processor's model name where the system tells it, else its architecture."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    else:
        line = re.search(r"model name\s*:\s*(.+)", _info())
        said = line[1] if line else ""
    return said or platform.processor() or platform.machine() or None


def _info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
