"""How runs are handed to SLURM: which options of sbatch, and what comes before a run."""

import re
import shlex
import sys
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from sagan_bench.core.cpu import THREADS
from sagan_bench.core.errors import UserError
from sagan_bench.data.store import cache_root
from sagan_bench.execution.profiles import EngineSettings

OURS = (
    "array", "error", "job-name", "no-requeue", "open-mode", "output", "parsable", "quiet",
    "requeue", "signal", "test-only", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that this engine needs for itself."""
_WIDE = (
    "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "nodes", "ntasks",
    "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket",
)  # fmt: skip
"""Options whose number is that of processes, or of GPUs, of a job."""
_READ = (
    *_WIDE, "cpus-per-task", "gres", "time", "tres-per-job", "tres-per-node", "tres-per-socket",
    "tres-per-task",
)  # fmt: skip
"""Options that are looked at here, so that they must have their whole names."""
_FLAGS = (
    "contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "nice", "overcommit",
    "oversubscribe", "propagate", "reboot", "spread-job", "use-min-nodes",
)  # fmt: skip
"""Options that need no value."""
_GPUS = re.compile(r"\bgpu(?:[:=][\w.-]*[A-Za-z][\w.-]*)?[:=](\d+)")
"""How many GPUs: of ``gpu:a100:2``, ``gres/gpu=2``."""
LEAST_NOTICE_SEC = 60
"""For a checkpoint, beside a step."""
RUN = "sagan_bench.execution.engines._slurm.cell"
"""The program that makes a run."""
Value = str | int | float | bool


class Settings(EngineSettings):
    """A profile of kind ``slurm``."""

    sbatch: dict[str, Value] = Field(
        validate_default=True, default={}, description="long options of sbatch, without dashes"
    )
    setup: tuple[str, ...] = Field((), description="lines of bash before a run")
    python: str = Field(sys.executable, min_length=1, description="of the machines of the cluster")
    signal_sec: int = Field(120, ge=10, description="seconds before the time limit to stop at")

    @field_validator("sbatch", mode="before")
    @classmethod
    def _options(cls, given: Any) -> dict[str, Value]:
        """Refuse what is no option, what is ours, and jobs of several processes or GPUs."""
        if not isinstance(given, Mapping):
            raise ValueError('expected a table such as { partition = "gpu", time = "8:00:00" }')
        for key, value in given.items():
            _refuse_option(str(key), value)
        if "time" not in given:
            raise ValueError(
                "no time: clusters' defaults are minutes; give time=8:00:00 or what a run takes "
                "(runs that need longer go on in another job by themselves)"
            )
        return dict(given)

    @field_validator("setup")
    @classmethod
    def _whole_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in line for line in lines):
            raise ValueError("a line of setup has a NUL character")
        return lines

    @property
    def threads(self) -> int:
        """CPU threads of a run: the CPUs of its task."""
        return int(self.sbatch.get("cpus-per-task", 1))

    def refuse_steps_of(self, seconds: float) -> None:
        """Refuse a notice of the time limit in which no step of a run ends.

        Raises:
            UserError: it is that short.
        """
        if seconds >= self.signal_sec:
            raise UserError(
                f"signal_sec = {self.signal_sec}: a step has taken {seconds:.0f} s, so that a run "
                "would be killed at its time limit before it wrote a checkpoint; set signal_sec "
                f"of the profile to {ceil(seconds) + LEAST_NOTICE_SEC} or more"
            )

    def options(self) -> list[str]:
        """Return the words for sbatch."""
        given = {key: value for key, value in self.sbatch.items() if value is not False}
        words = [f"--{key}" if v is True else f"--{key}={v}" for key, v in given.items()]
        return [*words, f"--signal=B:USR1@{self.signal_sec}", "--requeue", "--open-mode=append"]

    def script(self, code: Path, program: str, *words: object) -> str:
        """Return a batch script.

        Args:
            code: folder that holds the package.
            program: of its modules.
            words: for that.
        """
        shown = {
            "SAGAN_BENCH_CACHE": str(cache_root().absolute()),
            **dict.fromkeys(THREADS, self.threads),
        }
        command = [self.python, "-P", "-m", program, *map(str, words)]
        lines = [
            "#!/bin/bash",
            "# Of an experiment of sagan-bench, which wrote this.",
            "trap '' USR1 USR2  # until the program listens",
            *self.setup,
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            *(f"export {name}={shlex.quote(str(value))}" for name, value in shown.items()),
            f"exec {shlex.join(command)}",
        ]
        return "\n".join(lines) + "\n"

    def of_runs(self, jobs: Path, code: Path, device: str) -> str:
        """Return the batch script of an array.

        Args:
            jobs: file with a line for each run.
            code: folder that holds the package.
            device: as it is asked for.
        """
        return self.script(code, RUN, jobs, device, self.threads)

    def preview(self, folder: Path, runs: int) -> str:
        """Return the script and the command that would hand over so many runs."""
        at_a_time = f"%{self.jobs}" if self.jobs else ""
        words = ["sbatch", f"--array=0-{max(runs - 1, 0)}{at_a_time}", *self.options()]
        place = folder / ".slurm"
        script = self.of_runs(place / "1.jobs", place / "code-...", "auto")
        return f"{script}# {shlex.join(words)} {place / '1.sh'}\n"


def _refuse_option(key: str, value: Any) -> None:
    """Raise ValueError where an option cannot be handed on."""
    if not re.fullmatch(r"[a-z][a-z0-9-]+", key):
        long = key.strip("-").replace("_", "-")
        raise ValueError(f"{key}: expected the long name of an option of sbatch, such as {long!r}")
    if taken := next((name for name in OURS if name.startswith(key)), None):
        raise ValueError(f"{key}: the engine sets --{taken} itself; leave it out")
    if not isinstance(value, Value) or re.search(r"[\0\n\r]", str(value)):
        raise ValueError(f"{key}: expected a text in quotes, a number, or true or false")
    if whole := next((name for name in _READ if name.startswith(key) and key not in _READ), None):
        raise ValueError(f"{key}: expected the whole name of an option of sbatch, such as {whole}")
    if key == "cpus-per-task" and not re.fullmatch(r"[1-9][0-9]{0,3}", str(value)):
        raise ValueError(f"{key}: expected a whole number from 1, not {value}")
    wide = key in _WIDE and re.search(r"(\d+)([km]?)$", str(value))
    gpus = _GPUS.search(str(value)) if key == "gres" or key.startswith("tres-") else None
    if (wide and (int(wide[1]) > 1 or wide[2])) or (gpus and int(gpus[1]) > 1):
        raise ValueError(
            f"{key}={value}: a run of an experiment is one process on one device; train one run "
            "on many with torchrun in a job of your own (docs/clusters.md)"
        )


def typed(text: str) -> dict[str, Value]:
    """Return options of sbatch as they are typed: ``partition=gpu,time=8:00:00,exclusive``.

    What is no option without a value goes on with the one before: ``partition=a,b,time=10``.

    Raises:
        UserError: a part is empty, or the first is no option.
    """
    options: dict[str, Value] = {}
    before = ""
    for part in text.split(","):
        key, is_set, value = part.strip().removeprefix("--").partition("=")
        is_option = bool(is_set) or key in (*_FLAGS, *OURS)  # ours are refused later, by name
        goes_on = bool(key and before and not is_option)
        if not key or (is_set and not value) or not (is_option or goes_on):
            raise UserError(f"--slurm {text}: expected partition=gpu,time=8:00:00,gres=gpu:1")
        if goes_on:
            options[before] = f"{options[before]},{key}"
        else:
            options[key] = value if is_set else True
            before = key if is_set else ""
    return options
