"""Where a run runs: versions, the machine, the commit and the command, without secrets.

By which engine, and as which job of a cluster, the engine says in two environment variables.
"""

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from sagan_bench.core import cpu
from sagan_bench.runs.records import Attempt, Environment

ENGINE, JOB = "SAGAN_BENCH_ENGINE", "SAGAN_BENCH_JOB"
"""Variables by which a process knows which engine it makes a run for, and in which job."""
COMMIT = ".copied-of.json"
"""Beside a copy of the package: the commit that it was copied of."""


def environment(
    device: str,
    *,
    device_name: str | None = None,
    threads: int | None = None,
    cuda: str | None = None,
) -> Environment:
    """Return where this process runs; what only torch knows comes from the caller."""
    commit, dirty = git_state(Path(__file__).resolve().parents[1])
    words = map(without_secrets, sys.argv)
    command = shlex.join(words).encode(errors="backslashreplace").decode()
    return Environment(
        python=platform.python_version(),
        sagan_bench=installed(),
        torch=_version("torch"),
        torchvision=_version("torchvision"),
        torch_fidelity=_version("torch-fidelity"),
        numpy=_version("numpy"),
        platform=platform.platform(),
        cpu=cpu.name(),
        device=device,
        device_name=device_name,
        threads=threads,
        cuda=cuda,
        git_commit=commit,
        git_dirty=dirty,
        command=command,
    )


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within, for what is done or started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def attempt_here(from_step: int, threads: int | None, processes: int | None = None) -> Attempt:
    """Return the attempt at a run that this process begins now."""
    return Attempt(
        started=datetime.now(UTC),
        from_step=from_step,
        threads=threads,
        processes=processes,
        host=socket.gethostname(),
        engine=os.environ.get(ENGINE) or None,
        job=os.environ.get(JOB) or None,
    )


def without_secrets(word: str) -> str:
    """Return a word of a command line; of a URL in it, the password and all options are masked.

    Too much is masked rather than too little: what stands before the last ``@`` may be a password.
    """
    if "://" not in word and "://" in (decoded := unquote(word)):
        word = decoded
    before, scheme, rest = word.partition("://")
    who, at, place = rest.rpartition("@")
    place, options, _ = place.partition("?")
    user, colon, _ = who.partition(":")
    masked = (f"{user}:***@" if colon else "***@") if at else ""
    return f"{before}{scheme}{masked}{place}{'?***' if options else ''}" if scheme else word


def installed() -> str | None:
    """Return the version of this package; None if it is not installed."""
    return _version("sagan-bench")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirtiness of the checkout whose root holds ``package``, else nulls.

    A package installed inside somebody else's repository (a virtual environment there) is not
    part of that repository; a copy of it beside which `COMMIT` stands is of that commit.
    """
    with suppress(OSError, ValueError, KeyError):
        noted = json.loads((package.parent / COMMIT).read_bytes())
        return noted["commit"], noted["dirty"]
    git = ["git", "--no-optional-locks", "-C", str(package)]
    top = _output([*git, "rev-parse", "--show-toplevel"])
    if not top or Path(top).resolve() != package.parent.resolve():
        return None, None
    commit = _output([*git, "rev-parse", "--verify", "HEAD"])
    changes = _output([*git, "status", "--porcelain", "--", "."])
    if not commit or changes is None:
        return None, None
    return commit, bool(changes)


def _output(command: list[str]) -> str | None:
    """Return what a command prints, null if it fails or is not there."""
    # Within a git hook GIT_DIR and the like point at another repository.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, env=outside, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
